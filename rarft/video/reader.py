"""Read a video file: its properties, and frames by their number, upright. Needs PyAV and numpy, not torch.

A file is read in two passes. The first one collects the presentation times of all packets and decodes one frame. The
second one decodes the groups of pictures that contain requested frames, without the pictures that neither are
requested nor serve as a reference. It reads packets in the order of the file, since seeking is unreliable in some
containers and saves only reading, not decoding.

A large object in a store is read in ranges if its index states where the packets are (`mp4_object`); any other one is
downloaded to a temporary file.
"""

import logging
import os
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from rarft.errors import InputError
from rarft.storage.location import open_local
from rarft.storage.object_file import ObjectFile
from rarft.storage.s3 import ObjectNotFoundError, is_object_uri
from rarft.video.mp4_object import Mp4Object, SparseView, find_media_data
from rarft.video.sampling import MAX_ASPECT_RATIO
from rarft.video.timeline import Timeline

VIDEO_SUFFIXES = {
    ".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".m2ts", ".flv", ".wmv", ".3gp", ".gif",
    ".ogv",
}  # fmt: skip

# Smaller objects are downloaded: a request takes as long as transferring a few megabytes.
_MIN_RANGED_BYTES = 2**22
# Codecs whose packets FFmpeg returns without looking into them.
_INDEXED_CODECS = {"av1", "h264", "hevc", "mjpeg", "mpeg4", "prores", "vp9"}
# Packets of up to this many bytes are kept in memory between the passes.
_MAX_KEPT_BYTES = 2**26
# Fewer packets between two requested groups of pictures are decoded: restarting the decoder costs as much.
_MIN_SKIP = 12
# Decoders that skip pictures without changing any other. HEVC's do not: its pictures of higher temporal layers may
# refer to pictures that are marked as unused.
_SKIPS_UNUSED = {"h264", "mpeg1video", "mpeg2video", "mpeg4"}
# Several videos are decoded in parallel, so a video gets several threads only if it has more pixels than this.
_PIXELS_PER_THREAD = 2e8
_MAX_THREADS = 8
_HDR = {16: "PQ", 18: "HLG"}  # by transfer characteristic
_reported_hdr: set[str] = set()

logger = logging.getLogger(__name__)


class VideoError(InputError):
    """A video that cannot be used; the message names it and gives the reason.

    Attributes:
        kind: `unreadable`, `audio-only` or `frame-size`.
    """

    def __init__(self, message: str, kind: str = "unreadable") -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video.

    Attributes:
        duration: Presentation duration in seconds.
        fps: Average frames per second.
        frames: Number of presented frames.
        height: Height of an upright frame in square pixels.
        width: Width of an upright frame in square pixels.
        is_variable: Whether the frame rate varies.
        rotation: Degrees that the stored frames are rotated clockwise by to be upright, after mirroring.
        start_time: Presentation time of the first frame on the file's clock in seconds.
        hdr: Transfer characteristic of a video with a high dynamic range, `PQ` or `HLG`; None for others.
        missing_start: Seconds at the start that cannot be decoded, because the file starts between key frames.
        missing_end: Seconds at the end that the file declares and does not contain; 0 if it declares no duration.
        corrupt_packets: Number of packets of which a part is missing.
    """

    duration: float
    fps: float
    frames: int
    height: int
    width: int
    is_variable: bool = False
    rotation: int = 0
    start_time: float = 0.0
    hdr: str | None = None
    missing_start: float = 0.0
    missing_end: float = 0.0
    corrupt_packets: int = 0


@dataclass(frozen=True)
class _Packets:
    """Timestamps of all packets with content, in the order of the file."""

    total: int  # with those without content, which repeat a frame
    corrupt: int

    pts_P: NDArray[np.float64]  # NaN where missing
    dts_P: NDArray[np.float64]
    duration_P: NDArray[np.float64]
    is_key_P: NDArray[np.bool_]
    is_presented_P: NDArray[np.bool_]
    position_P: NDArray[np.float64]  # first byte in the file; NaN if unknown
    size_P: NDArray[np.float64]  # bytes


@dataclass(frozen=True)
class _Orientation:
    """Steps from a stored to an upright frame: transpose, then reverse rows and columns."""

    is_transposed: bool = False
    reverses_rows: bool = False
    reverses_columns: bool = False

    @classmethod
    def of(cls, frame: av.VideoFrame) -> "_Orientation":
        """Read a frame's display matrix, to the nearest right angle."""
        side_data: Any = frame.side_data.get("DISPLAYMATRIX")
        if side_data is None:
            return cls()
        a, b, _, c, d = np.frombuffer(side_data, np.int32)[:5].tolist()
        if abs(b) + abs(c) > abs(a) + abs(d):
            return cls(True, b < 0, c < 0)
        return cls(False, d < 0, a < 0)

    @property
    def rotation(self) -> int:
        """Clockwise degrees, after a mirroring of the columns if there is one."""
        if self.is_transposed:
            return 90 if self.reverses_columns else 270
        return 180 if self.reverses_rows else 0

    def upright(self, pixels_HWC: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the pixels of an upright frame."""
        if self.is_transposed:
            pixels_HWC = pixels_HWC.transpose(1, 0, 2)
        if self.reverses_rows:
            pixels_HWC = pixels_HWC[::-1]
        return pixels_HWC[:, ::-1] if self.reverses_columns else pixels_HWC


def probe(path: str) -> VideoInfo:
    """Read the properties of a video. Its packets are counted, since headers are sometimes wrong.

    Args:
        path: Path or URI of the video.

    Raises:
        VideoError: The video cannot be read.
    """
    with VideoReader(path, keeps_packets=False) as video:
        return video.info


class VideoReader:
    """An open video.

    Attributes:
        info: Properties of the video.
        timeline: Presentation times of its frames.
    """

    def __init__(self, path: str, keeps_packets: bool = True, max_threads: int = _MAX_THREADS) -> None:
        """
        Args:
            path: Path or URI of the video.
            keeps_packets: Whether to keep packets in memory for `frames`, if they are small.
            max_threads: Number of threads that may decode a large video.

        Raises:
            VideoError: The file does not exist, is not a video, has no frames, or has no usable times.
            StoreError: The store cannot be read, or the object changed, which is not an error of the video.
        """
        self._path, self._keeps_packets, self._max_threads = path, keeps_packets, max_threads
        self._file: str | Mp4Object = path
        self._resources = ExitStack()
        try:
            with self._decoding_errors("not a readable video"):
                self._open()
        except BaseException:
            self._resources.close()
            raise

    def __enter__(self) -> "VideoReader":
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    @contextmanager
    def _decoding_errors(self, problem: str) -> Iterator[None]:
        try:
            yield
        except (av.error.FFmpegError, VideoError) as error:
            self._check_store()
            if isinstance(error, VideoError):
                raise
            raise VideoError(f"{self._path}: {problem} ({error.strerror})") from error
        self._check_store()

    def _check_store(self) -> None:
        """Raise the error of the store that FFmpeg took for the end of the file, if there was one."""
        if isinstance(self._file, Mp4Object):
            self._file.check()

    def _open_file(self) -> None:
        """Set `_file` to a local path, or to an object that is read in ranges, and open its stream."""
        if is_object_uri(self._path):
            try:
                file = ObjectFile(self._path)
            except ObjectNotFoundError as error:
                raise VideoError(str(error)) from error
            media = find_media_data(file) if file.size >= _MIN_RANGED_BYTES else None
            if media is not None:
                self._file = Mp4Object(file, media)
                self._stream = self._open_stream()
                if self._stream.codec_context.codec.canonical_name in _INDEXED_CODECS:
                    return
            self._file = str(self._resources.enter_context(open_local(self._path)))
        elif not Path(self._path).is_file():
            raise VideoError(f"{self._path}: no such video")
        self._stream = self._open_stream()

    def _open(self) -> None:
        self._open_file()
        self._decoder = self._stream.codec_context
        packets, first = self._scan()
        self._orientation = _Orientation.of(first)
        tick = float(self._stream.time_base or 1.0)
        rate = self._stream.average_rate or self._stream.guessed_rate
        times_N, last_duration, start = self._presentation_times(packets, first, tick, float(rate) if rate else None)
        self.timeline = Timeline.of(times_N, float(rate) if rate else None, last_duration, tick)
        height, width = self._size(first)
        self.info = VideoInfo(
            duration=self.timeline.duration,
            fps=self.timeline.fps,
            frames=len(times_N),
            height=height,
            width=width,
            is_variable=self.timeline.is_variable,
            rotation=self._orientation.rotation,
            start_time=start,
            hdr=_HDR.get(first.color_trc),
            missing_start=self._missing_start(packets, tick),
            missing_end=self._missing_end(packets, start),
            corrupt_packets=packets.corrupt,
        )

    def _open_stream(self, threads: int = 1) -> Any:
        file: str | SparseView
        if isinstance(self._file, str):
            file, options = self._file, {}
        else:
            file = self._view = self._file.view()
            options = {"fflags": "+noparse"}  # a parser looks into packets
        # Metadata such as titles is not used, and not always valid UTF-8.
        container = self._resources.enter_context(av.open(file, metadata_errors="ignore", options=options))
        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            raise VideoError(f"{self._path}: has no video stream", "audio-only")
        if streams[0].codec_context is None:
            raise VideoError(f"{self._path}: has a video stream of an unknown codec")
        streams[0].codec_context.thread_count = threads
        streams[0].thread_type = "NONE" if threads == 1 else "AUTO"
        return streams[0]

    def _scan(self) -> tuple[_Packets, av.VideoFrame]:
        """Return the packets' timestamps, and the first frame that is decoded."""
        rows: list[tuple[float, float, float, bool, bool, float, int]] = []
        is_ranged = isinstance(self._file, Mp4Object)
        kept: list[av.Packet] | None = [] if self._keeps_packets and not is_ranged else None
        kept_bytes, total, corrupt, first = 0, 0, 0, None
        for packet in self._stream.container.demux(self._stream):
            # A frame with an error depends on a part that was cut off, as long as an intact one follows.
            if first is None or first.is_corrupt:
                frames = _decode(self._decoder, packet, is_strict=False)
                first = next((frame for frame in frames if not frame.is_corrupt), first or next(iter(frames), None))
                if isinstance(self._file, Mp4Object) and first is not None and not first.is_corrupt:
                    self._view.limit(self._file.known_extents([]))
            total += packet.size > 0 or packet.dts is not None  # not the end of the file
            if not packet.size:
                continue
            kept_bytes += packet.size
            if kept is not None:
                kept.append(packet)
                if kept_bytes > _MAX_KEPT_BYTES:
                    kept = None
            # A corrupt packet is one that the file ends in, or that a part of is missing.
            corrupt += packet.is_corrupt
            is_presented = not (packet.is_discard or packet.is_corrupt or self._is_hidden(packet))
            pts, dts, position = (np.nan if v is None else v for v in (packet.pts, packet.dts, packet.pos))
            rows.append((pts, dts, packet.duration or 0, packet.is_keyframe, is_presented, position, packet.size))
        if first is None or not any(row[4] for row in rows):
            raise VideoError(f"{self._path}: contains no frames that can be decoded")
        self._kept = kept
        return _Packets(total, corrupt, *(np.array(column) for column in zip(*rows, strict=True))), first

    def _missing_start(self, packets: _Packets, tick: float) -> float:
        """Return the seconds before the first frame that packets are presented in."""
        if self._packet_N is None:
            return 0.0
        return float(packets.pts_P[self._packet_N[0]] - packets.pts_P[packets.is_presented_P].min()) * tick

    def _missing_end(self, packets: _Packets, start: float) -> float:
        """Return the seconds that the file declares and does not contain.

        Many formats declare none, or only an estimate.
        """
        container, metadata = self._stream.container, self._stream.metadata
        formats = container.format.name.split(",")
        if "mp4" in formats or self._is_avi:
            declared_packets = self._stream.frames if self._is_avi else len(self._stream.index_entries)
            return float(max(0, declared_packets - packets.total + packets.corrupt) / self.timeline.fps)
        if not {"matroska", "flv"} & {*formats}:
            return 0.0
        if "DURATION" in metadata:
            hours, minutes, seconds = map(float, metadata["DURATION"].split(":"))
            declared = 3600 * hours + 60 * minutes + seconds
        elif len(container.streams) == 1:  # otherwise the container's duration may be that of another stream
            declared = container.duration / av.time_base
        else:
            return 0.0
        missing = declared - start - self.timeline.duration
        return missing if missing > 0.5 / self.timeline.fps else 0.0  # times are rounded to milliseconds

    def _is_hidden(self, packet: av.Packet) -> bool:
        """Check whether a packet is one of VP8's that are only referred to, and never presented."""
        return self._decoder.name == "vp8" and not memoryview(packet)[0] >> 4 & 1

    def _presentation_times(
        self, packets: _Packets, first: av.VideoFrame, tick: float, fps: float | None
    ) -> tuple[NDArray[np.float64], float | None, float]:
        """Return times in seconds since the first frame, the last frame's duration, and the first frame's time.

        Sets `_packet_N`, the packet of each frame, if the packets have presentation times; else frames are numbered
        in the order that they are decoded in.
        """
        pts_P, presented_P = packets.pts_P, packets.is_presented_P
        self._packets, self._packet_N = packets, None
        pts = pts_P[presented_P]
        # AVI stores no presentation times; FFmpeg's guesses are right only without B-frames.
        self._is_avi = "avi" in self._stream.container.format.name.split(",")
        has_times = first.pts is not None and not (self._is_avi and (pts != packets.dts_P[presented_P]).any())
        if has_times and not np.isnan(pts).any() and len(np.unique(pts)) == len(pts):
            # Frames before the first one that can be decoded depend on a part that was cut off.
            packet_N = np.flatnonzero(presented_P & (pts_P >= min(first.pts, pts.max())))
            keys = pts_P[packet_N[packets.is_key_P[packet_N]]]
            if (np.diff(keys) < 0).any():
                seconds = (keys[:-1][np.diff(keys) < 0][0] - first.pts) * tick
                raise VideoError(f"{self._path}: its times go backwards after {seconds:.3f} s; encode it again")
            self._packet_N = packet_N[np.argsort(pts_P[packet_N])]
            ticks_N = pts_P[self._packet_N]
            last = float(packets.duration_P[self._packet_N[-1]])
        else:
            ticks_N, last = self._decoded_times(packets, fps, tick), 0.0
        return (ticks_N - ticks_N[0]) * tick, last * tick or None, float(ticks_N[0] * tick)

    def _decoded_times(self, packets: _Packets, fps: float | None, tick: float) -> NDArray[np.float64]:
        """Return times in ticks where a packet has no presentation time, or the one of another packet."""
        if self._is_avi and not np.isnan(packets.dts_P).any():
            return np.sort(packets.dts_P[packets.is_presented_P])
        frames = self._decode_all(1)
        ticks_N = np.array([np.nan if frame.pts is None else frame.pts for frame in frames], np.float64)
        if np.isnan(ticks_N).all() and fps:
            return np.arange(len(ticks_N)) / fps / tick  # a raw stream has no times at all
        # Matroska has no times before its zero.
        missing = int(np.argmin(np.isnan(ticks_N)))
        if np.isnan(ticks_N[missing:]).any() or (np.diff(ticks_N[missing:]) <= 0).any() or (missing and not fps):
            raise VideoError(f"{self._path}: its frames have no usable presentation times; encode it again")
        ticks_N[:missing] = ticks_N[missing] - np.arange(missing, 0, -1) / (fps or 1.0) / tick
        return ticks_N

    def _size(self, frame: av.VideoFrame) -> tuple[int, int]:
        """Return the height and width of upright frames in square pixels; sides are stretched, not shrunk."""
        ratio = float(self._stream.sample_aspect_ratio or 0) or 1.0
        height, width = round(frame.height / min(1.0, ratio)), round(frame.width * max(1.0, ratio))
        if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
            problem = f"frames of {width}x{height} exceed the aspect ratio {MAX_ASPECT_RATIO}"
            raise VideoError(f"{self._path}: {problem}", "frame-size")
        return (width, height) if self._orientation.is_transposed else (height, width)

    def frames(self, numbers: Iterable[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Decode frames.

        Args:
            numbers: Numbers of the frames, from 0 in the order of presentation.

        Yields:
            Number and RGB pixels (H, W, 3) of each frame once, in the order of decoding. They are upright, but not
            square where the file's are not.

        Raises:
            VideoError: A frame cannot be decoded.
        """
        self._report_hdr()
        reformatter = VideoReformatter()
        pending = {int(number) for number in numbers}
        with self._decoding_errors("cannot be decoded"), closing(self._decoded(pending)) as decoded:
            for number, frame in decoded:
                pixels_HWC: Any = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()
                yield number, self._orientation.upright(pixels_HWC)
        if pending:
            seconds = self.timeline.times_N[min(pending)]
            raise VideoError(f"{self._path}: the frame at {seconds:.3f} s cannot be decoded; encode the video again")

    def check(self, numbers: Iterable[int]) -> tuple[set[int], set[int]]:
        """Decode frames as `frames` does, without keeping their pixels.

        Args:
            numbers: Numbers of the frames, from 0 in the order of presentation.

        Returns:
            The numbers of the frames that cannot be decoded, and of those that are decoded with errors.
        """
        pending = {int(number) for number in numbers}
        damaged: set[int] = set()
        with suppress(av.error.FFmpegError), closing(self._decoded(pending)) as decoded:
            for number, frame in decoded:
                if frame.is_corrupt:
                    damaged.add(number)
        self._check_store()
        return pending, damaged

    def _decoded(self, pending: set[int]) -> Generator[tuple[int, av.VideoFrame], None, None]:
        """Decode frames, each once, and remove their numbers from `pending`."""
        # The second pass is for files whose key frames do not start a group of pictures.
        passes = [self._decode_in_order] if self._packet_N is None else [self._decode_groups, self._decode_by_time]
        for decode in passes:
            if not pending:
                return
            with closing(decode(sorted(pending))) as decoded:
                for number, frame in decoded:
                    if number in pending:
                        pending.remove(number)
                        yield number, frame
                    if not pending:
                        return
            self._check_store()

    def _report_hdr(self) -> None:
        if self.info.hdr and self.info.hdr not in _reported_hdr:
            _reported_hdr.add(self.info.hdr)
            message = "%s: HDR (%s) video; its frames are not tone mapped (reported once)"
            logger.warning(message, self._path, self.info.hdr)

    def _restart(
        self, threads: int, ranges: Sequence[tuple[int, int]] | None = None
    ) -> tuple[Any, Iterator[av.Packet]]:
        """Return a decoder, and the packets from the start of the file.

        Args:
            threads: Number of threads of the decoder.
            ranges: Ranges of packets that are decoded; the content of the others may be missing. None for all.
        """
        if threads == 1 and self._kept is not None:
            self._decoder.flush_buffers()
            return self._decoder, iter(self._kept)
        stream = self._open_stream(threads)
        if isinstance(self._file, Mp4Object) and ranges is not None:
            starts_P, sizes_P = self._packets.position_P, self._packets.size_P
            needed = [index for start, stop in ranges for index in range(start, stop)]
            extents = zip(starts_P[needed], starts_P[needed] + sizes_P[needed], strict=True)
            self._view.limit(self._file.known_extents((int(start), int(stop)) for start, stop in extents))
        packets = self._kept or (packet for packet in stream.container.demux(stream) if packet.size)
        return stream.codec_context, iter(packets)

    def _decode_all(self, threads: int) -> Generator[av.VideoFrame, None, None]:
        """Decode all packets. Errors before the first frame are of a part that was cut off."""
        decoder, packets = self._restart(threads)
        has_frames = False
        with _emptied(decoder):
            for packet in chain(packets, [None]):
                for frame in _decode(decoder, packet, has_frames and not (packet and packet.is_corrupt)):
                    has_frames = True
                    yield frame

    def _decode_in_order(self, numbers: list[int]) -> Generator[tuple[int, av.VideoFrame], None, None]:
        with closing(self._decode_all(self._threads(numbers[-1]))) as frames:
            yield from enumerate(frames)

    def _decode_by_time(self, numbers: list[int]) -> Generator[tuple[int, av.VideoFrame], None, None]:
        by_pts = self._numbers_by_pts(numbers)
        with closing(self._decode_all(1)) as frames:
            yield from ((by_pts[frame.pts], frame) for frame in frames if frame.pts in by_pts)

    def _decode_groups(self, numbers: list[int]) -> Generator[tuple[int, av.VideoFrame], None, None]:
        """Decode the groups of pictures that contain frames, from their key frame to the last of these frames."""
        packet_N: Any = self._packet_N
        wanted = set(packet_N[numbers].tolist())
        ranges = self._packet_ranges(sorted(wanted))
        by_pts = self._numbers_by_pts(numbers)
        decoder, packets = self._restart(self._threads(sum(stop - start for start, stop in ranges)), ranges)
        skips_unused = decoder.name in _SKIPS_UNUSED
        position = 0
        with _emptied(decoder):
            for start, stop in ranges:
                group = islice(packets, start - position, stop - position)
                for index, packet in chain(enumerate(group, start), [(stop, None)]):
                    if skips_unused and packet is not None:
                        decoder.skip_frame = "DEFAULT" if index in wanted else "NONREF"
                    for frame in _decode(decoder, packet, is_strict=False):
                        # A decoder that starts at a frame that is not a key frame reports an error in it.
                        if frame.pts in by_pts and not (start and frame.is_corrupt):
                            yield by_pts[frame.pts], frame
                decoder.flush_buffers()
                position = stop

    def _numbers_by_pts(self, numbers: list[int]) -> dict[int, int]:
        packet_N: Any = self._packet_N
        return dict(zip(self._packets.pts_P[packet_N[numbers]].astype(int).tolist(), numbers, strict=True))

    def _packet_ranges(self, wanted: list[int]) -> list[tuple[int, int]]:
        """Return the ranges of packets that have to be decoded for the wanted ones, which are in increasing order."""
        pts_P, keys = self._packets.pts_P, np.flatnonzero(self._packets.is_key_P)
        ranges: list[tuple[int, int]] = []
        for packet in wanted:
            key = int(np.searchsorted(keys, packet, side="right")) - 1
            # A frame that is decoded after a key frame but presented before it belongs to the group before.
            while key >= 0 and pts_P[keys[key]] > pts_P[packet]:
                key -= 1
            start = int(keys[key]) if key >= 0 else 0
            if ranges and start < ranges[-1][1] + _MIN_SKIP:
                ranges[-1] = (ranges[-1][0], packet + 1)
            else:
                ranges.append((start, packet + 1))
        return ranges

    def _threads(self, frames: int) -> int:
        """Return the number of threads that decode this many frames."""
        pixels = frames * self.info.height * self.info.width
        return int(max(1, min(pixels / _PIXELS_PER_THREAD, os.cpu_count() or 1, self._max_threads)))


@contextmanager
def _emptied(decoder: Any) -> Iterator[None]:
    """Wait for the threads of a decoder at the end of the block.

    PyAV frees a decoder while it holds Python's lock. A thread that is still decoding, and logs through Python if
    PyAV's log level is set, would wait for that lock forever.
    """
    try:
        yield
    finally:
        _decode(decoder, None, is_strict=False)
        decoder.skip_frame = "DEFAULT"


def _decode(decoder: Any, packet: av.Packet | None, is_strict: bool) -> list[av.VideoFrame]:
    """Decode a packet, or what is left in the decoder (None).

    Raises:
        av.error.InvalidDataError: The packet is damaged, and `is_strict` is set.
    """
    try:
        return list(decoder.decode(packet))
    except av.error.EOFError:  # emptied before
        return []
    except av.error.InvalidDataError:
        if is_strict:
            raise
        return []
