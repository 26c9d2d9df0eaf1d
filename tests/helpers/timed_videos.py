"""Videos of many forms whose pixels state their own presentation time.

Each frame shows 7 x 4 black or white cells: 20 bits of its presentation time in milliseconds, relative to the first
presented frame, and 8 bits of checksum. They survive compression and scaling, and a picture that is turned, mirrored
or cut has a wrong checksum.
"""

import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np

COLUMNS, ROWS, CELL = 7, 4, 16
WIDTH, HEIGHT = COLUMNS * CELL, ROWS * CELL
_BITS, _SUM_BITS = 20, 8


def picture(milliseconds: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """Return the frame (H, W, 3) that states a time."""
    checksum = zlib.crc32(milliseconds.to_bytes(4, "little")) % 2**_SUM_BITS
    code = milliseconds << _SUM_BITS | checksum
    cells = np.array([code >> bit & 1 for bit in range(_BITS + _SUM_BITS)], np.uint8).reshape(ROWS, COLUMNS)
    rows = np.arange(height) * ROWS // height
    columns = np.arange(width) * COLUMNS // width
    return np.repeat((16 + 219 * cells[rows][:, columns])[..., None], 3, axis=2).astype(np.uint8)


def stated_time(pixels_HWC: np.ndarray) -> float | None:
    """Return the seconds that a picture states, or None if it is not an upright picture of this module."""
    height, width = pixels_HWC.shape[:2]
    rows = (np.arange(ROWS) * 2 + 1) * height // (2 * ROWS)
    columns = (np.arange(COLUMNS) * 2 + 1) * width // (2 * COLUMNS)
    cells = pixels_HWC[rows][:, columns].mean(axis=2) > 127
    code = sum(int(bit) << index for index, bit in enumerate(cells.flatten()))
    milliseconds, checksum = divmod(code, 2**_SUM_BITS)
    return milliseconds / 1000 if zlib.crc32(milliseconds.to_bytes(4, "little")) % 2**_SUM_BITS == checksum else None


@dataclass(frozen=True)
class TimedVideo:
    """A file, and what a correct reader finds in it.

    Attributes:
        kind: Name of the form.
        path: The file.
        times: Presentation times of its frames in seconds, from 0.
        duration: Presentation duration in seconds.
        constant: Whether the frame rate is constant.
    """

    kind: str
    path: str
    times: tuple[float, ...]
    duration: float
    constant: bool

    @property
    def interval(self) -> float:
        """Shortest time between two frames in seconds."""
        return float(min(np.diff(self.times), default=self.duration))

    def frame_at(self, seconds: float) -> float:
        """Return the presentation time of the frame that is shown at a time."""
        return max((time for time in self.times if time <= seconds + 1e-6), default=self.times[0])


def write(
    path: Path,
    ticks: Sequence[int],
    codec: str = "libx264",
    rate: int = 25,
    *,
    time_base: Fraction = Fraction(1, 1000),
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    container: dict[str, str] | None = None,
    muxer: str | None = None,
    state: Callable[[int], int] | None = None,
    size: tuple[int, int] = (HEIGHT, WIDTH),
    store: Callable[[np.ndarray], np.ndarray] = lambda pixels: pixels,
    setup: Callable[[av.VideoStream], None] = lambda stream: None,
    change: Callable[[list[av.Packet]], list[av.Packet]] = lambda packets: packets,
) -> None:
    """Encode pictures of presentation times.

    Args:
        path: File to write.
        ticks: Presentation times in units of `time_base`.
        codec: Encoder.
        rate: Frame rate that the file declares.
        time_base: Unit of time of the encoder in seconds.
        pix_fmt: Pixel format.
        options: Options of the encoder.
        container: Options of the muxer.
        muxer: Name of the muxer. Default: by the file's suffix.
        state: Function from a tick to the milliseconds that its picture states. Default: since the first tick.
        size: Height and width of the pictures.
        store: Function that turns an upright picture into the one that the file stores.
        setup: Function that changes the stream before it is opened.
        change: Function that changes the encoded packets.
    """
    state = state or (lambda tick: round((tick - ticks[0]) * time_base * 1000))
    with av.open(str(path), "w", format=muxer, options=container or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.height, stream.width = store(picture(0, *size)).shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = stream.time_base = time_base
        stream.codec_context.thread_count = 1
        setup(stream)
        packets: list[av.Packet] = []
        for tick in ticks:
            frame = av.VideoFrame.from_ndarray(store(picture(state(tick), *size)), "rgb24")
            frame.pts, frame.time_base = tick, time_base
            packets += stream.encode(frame)
        output.mux(change(packets + stream.encode()))


_RATE = 25
_TICKS = Fraction(1, _RATE)
_FRAMES = 80  # of most files: 3.2 seconds
_H264 = {"preset": "veryfast", "crf": "18", "bf": "2", "g": "12"}
_NO_B_FRAMES = {**_H264, "bf": "0"}
_VPX = {"b": "1000000", "deadline": "realtime", "cpu-used": "8", "g": "12"}


def _varying(count: int) -> list[int]:
    """Return times in milliseconds that are 20 to 500 ms apart, far from any constant rate."""
    gaps = [20 if index % 24 < 16 else 100 + 50 * (index % 9) for index in range(count - 1)]
    return [0, *(int(tick) for tick in np.cumsum(gaps))]


def _box(content: bytes, *names: bytes) -> tuple[int, int]:
    """Return where an MP4 box starts and ends; `names` are the boxes on the way to it."""
    start, end = 0, len(content)
    for name in names:
        while content[start + 4 : start + 8] != name:
            start += struct.unpack_from(">I", content, start)[0]
            if start >= end:
                raise ValueError(f"no box {name!r}")
        first, end = start, start + struct.unpack_from(">I", content, start)[0]
        start += 8
    return first, end


def set_edit_list(path: Path, edits: Sequence[tuple[float, float]]) -> None:
    """Replace the edit list of an MP4 file whose `moov` box is its last.

    Args:
        path: The file.
        edits: Start in the media, or -1 for an empty edit, and duration of each edit, in seconds.
    """
    content = bytearray(path.read_bytes())
    movie_scale = struct.unpack_from(">I", content, _box(content, b"moov", b"mvhd")[0] + 20)[0]
    media_scale = struct.unpack_from(">I", content, _box(content, b"moov", b"trak", b"mdia", b"mdhd")[0] + 20)[0]
    entries = b"".join(
        struct.pack(">IiI", round(seconds * movie_scale), -1 if start < 0 else round(start * media_scale), 1 << 16)
        for start, seconds in edits
    )
    body = b"elst" + struct.pack(">II", 0, len(edits)) + entries
    box = struct.pack(">I", len(body) + 4) + body
    box = struct.pack(">I", len(box) + 8) + b"edts" + box
    try:
        start, end = _box(content, b"moov", b"trak", b"edts")
    except ValueError:
        start = end = _box(content, b"moov", b"trak", b"mdia")[0]
    content[start:end] = box
    for names in ((b"moov",), (b"moov", b"trak")):
        first = _box(content, *names)[0]
        size = struct.unpack_from(">I", content, first)[0] + len(box) - (end - start)
        struct.pack_into(">I", content, first, size)
    path.write_bytes(content)


def _turned(turns: int, mirrored: bool = False) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function that stores a picture so that turning it clockwise, then mirroring, shows it upright."""

    def store(pixels: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(np.rot90(pixels[:, ::-1] if mirrored else pixels, turns))

    return store


def _rotation(degrees: int, mirrored: bool = False) -> Callable[[av.VideoStream], None]:
    return lambda stream: stream.set_display_rotation(degrees, hflip=mirrored)


def _wide_pixels(stream: av.VideoStream) -> None:
    stream.codec_context.sample_aspect_ratio = Fraction(2)


def _add_hidden_frames(packets: list[av.Packet]) -> list[av.Packet]:
    """Add a VP8 frame that is not presented before each key frame, as encoders do for reference."""
    changed = packets[:1]
    for previous, packet in pairwise(packets):
        if packet.is_keyframe:
            content = bytearray(bytes(previous))
            content[0] &= 0b1110_1111  # the bit that shows the frame
            hidden = av.Packet(bytes(content))
            hidden.stream, hidden.time_base = packet.stream, packet.time_base
            hidden.pts = hidden.dts = packet.pts - 1
            changed.append(hidden)
        changed.append(packet)
    return changed


def _steady(count: int = _FRAMES) -> list[int]:
    return list(range(count))


def _with_gap(count: int = _FRAMES) -> list[int]:
    """Return ticks of a constant rate with 3 seconds missing in the middle."""
    return [tick + (75 if tick >= count // 2 else 0) for tick in range(count)]


# Name of a kind: (suffix, ticks, arguments of `write`). The rate is constant where the ticks are.
_FORMS: dict[str, tuple[str, list[int], dict[str, Any]]] = {
    "b-frames": (".mp4", _steady(), {"options": _H264}),
    "variable": (".mp4", _varying(96), {"options": _H264, "time_base": Fraction(1, 1000)}),
    "variable-mkv": (".mkv", _varying(96), {"options": _NO_B_FRAMES, "time_base": Fraction(1, 1000)}),
    "offset": (".ts", [600 * _RATE + tick for tick in _steady()], {"options": _H264}),
    # The clock of a transport stream has 33 bits; FFmpeg gives what comes before its wrap negative times.
    "negative": (".ts", [round((2**33 / 90_000 - 1) * _RATE) + tick for tick in _steady()], {"options": _H264}),
    "gap": (".mp4", _with_gap(), {"options": _H264}),
    "rotate-90": (".mp4", _steady(), {"options": _H264, "store": _turned(1), "setup": _rotation(-90)}),
    "rotate-180": (".mp4", _steady(), {"options": _H264, "store": _turned(2), "setup": _rotation(180)}),
    "rotate-270": (".mov", _steady(), {"options": _H264, "store": _turned(3), "setup": _rotation(90)}),
    "mirrored": (".mp4", _steady(), {"options": _H264, "store": _turned(0, True), "setup": _rotation(0, True)}),
    "wide-pixels": (".mp4", _steady(), {"options": _H264, "store": lambda p: p[:, ::2].copy(), "setup": _wide_pixels}),
    "10-bit": (".mkv", _steady(), {"options": _H264, "pix_fmt": "yuv420p10le"}),
    "interlaced": (
        ".m2ts",
        _steady(),
        {"codec": "mpeg2video", "options": {"flags": "+ildct+ilme", "bf": "2", "g": "12", "b": "4000000"}},
    ),
    "h263": (".3gp", _steady(), {"codec": "h263", "size": (96, 128), "options": {"qscale": "2"}}),
    "palette": (
        ".gif",
        [10 * tick for tick in _steady(40)],
        {"codec": "gif", "rate": 10, "time_base": Fraction(1, 100), "pix_fmt": "rgb8",
         "container": {"final_delay": "10"}},
    ),
    "ogv": (".ogv", _steady(), {"codec": "libvpx", "options": _VPX}),
    "hidden-frames": (
        ".webm",
        [40 * tick for tick in _steady()],
        {"codec": "libvpx", "options": _VPX, "time_base": Fraction(1, 1000), "change": _add_hidden_frames},
    ),
    "alpha": (".mov", _steady(), {"codec": "qtrle", "pix_fmt": "argb"}),
    "alpha-webm": (".webm", _steady(), {"codec": "libvpx-vp9", "options": _VPX, "pix_fmt": "yuva420p"}),
    "avi": (".avi", _steady(), {"codec": "mpeg4", "options": {"b": "2000000", "g": "12"}}),
    "avi-b-frames": (".avi", _steady(), {"options": _H264}),
    "long-gop": (".mp4", _steady(200), {"options": {**_H264, "g": "1000", "keyint_min": "1000", "sc_threshold": "0"}}),
    "hevc": (
        ".mp4",
        _steady(),
        {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none:keyint=12:bframes=3"}},
    ),
    "open-gop": (".mkv", _steady(160), {"options": {**_H264, "x264-params": "open-gop=1:keyint=12:scenecut=0"}}),
    "two-frames": (".mp4", _steady(2), {"options": _H264}),
    "wmv": (".wmv", _steady(), {"codec": "wmv2", "options": {"b": "2000000"}}),
    "flv": (".flv", _steady(), {"options": _H264}),
    "mpg": (".mpg", _steady(), {"codec": "mpeg2video", "options": {"bf": "2", "g": "12", "b": "4000000"}}),
}  # fmt: skip


KINDS = [*_FORMS, "edit-list", "edit-list-joined", "edit-list-delayed"]


def make_videos(folder: Path) -> list[TimedVideo]:
    """Write a video of each kind."""
    videos = []
    for kind, (suffix, ticks, arguments) in _FORMS.items():
        path = folder / f"{kind}{suffix}"
        arguments = {"time_base": _TICKS, **arguments}
        write(path, ticks, **arguments)
        times = tuple(round(float((tick - ticks[0]) * arguments["time_base"]), 6) for tick in ticks)
        gaps = np.diff(times)
        constant = bool(np.ptp(gaps) < 1e-6)
        videos.append(TimedVideo(kind, str(path), times, times[-1] + (gaps[0] if constant else 0), constant))
    return [
        *videos,
        _edited(folder, "edit-list", [(1.4, 3.0)], _H264),
        # FFmpeg presents a frame too late after a join where there are B-frames.
        _edited(folder, "edit-list-joined", [(0.4, 1.2), (3.2, 2.0)], _NO_B_FRAMES),
        _edited(folder, "edit-list-delayed", [(-1, 600.0), (0.0, 3.2)], _H264),
    ]


def make_unusual_videos(folder: Path) -> dict[str, Path]:
    """Write files that validation reports, 8 seconds where they are whole, by kind."""
    whole = _steady(200)
    files = {
        kind: folder / f"{kind}.mp4" for kind in ("hdr", "tiny", "single-frame", "audio-only", "web-page", "hole")
    }
    files |= {kind: folder / f"{kind}.mkv" for kind in ("strip", "narrow")}
    options = {**_H264, "x264-params": "transfer=arib-std-b67"}

    def set_hlg(stream: av.VideoStream) -> None:
        stream.codec_context.color_trc = 18

    write(files["hdr"], whole, time_base=_TICKS, options=options, pix_fmt="yuv420p10le", setup=set_hlg)
    write(files["tiny"], whole, time_base=_TICKS, options=_H264, size=(24, 32))
    write(files["strip"], whole, "ffv1", time_base=_TICKS, size=(16, 4096))
    write(files["narrow"], _steady(120), "ffv1", 1, time_base=Fraction(1), size=(16, 2400))
    write(files["single-frame"], [0], time_base=_TICKS, options=_H264)
    _write_audio(files["audio-only"])
    files["web-page"].write_text("<!DOCTYPE html><title>Not found</title>")
    for suffix in ("mp4", "mkv", "avi", "ts"):
        container = {"movflags": "faststart"} if suffix == "mp4" else {}
        options = {**_NO_B_FRAMES, "g": "50", "sc_threshold": "0"}
        write(folder / f"whole.{suffix}", whole, time_base=_TICKS, options=options, container=container)
    for suffix in ("mp4", "mkv", "avi"):
        content = (folder / f"whole.{suffix}").read_bytes()
        files[f"truncated-{suffix}"] = folder / f"truncated.{suffix}"
        files[f"truncated-{suffix}"].write_bytes(content[: len(content) * 3 // 4])
    with av.open(str(folder / "whole.mp4")) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    content = bytearray((folder / "whole.mp4").read_bytes())
    files["last-frame-incomplete"] = folder / "last-frame-incomplete.mp4"
    files["last-frame-incomplete"].write_bytes(content[:-1])
    start, end = packets[60].pos, packets[140].pos
    content[start:end] = bytes(end - start)
    files["hole"].write_bytes(content)
    with av.open(str(folder / "whole.ts")) as container:
        cut = next(packet.pos for index, packet in enumerate(container.demux(video=0)) if index == 10)
    files["between-key-frames"] = folder / "between-key-frames.ts"
    files["between-key-frames"].write_bytes((folder / "whole.ts").read_bytes()[cut:])
    return files


def _write_audio(path: Path) -> None:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        for packet in (*stream.encode(frame), *stream.encode()):
            output.mux(packet)


def _edited(folder: Path, kind: str, edits: Sequence[tuple[float, float]], options: dict[str, str]) -> TimedVideo:
    """Write a video that an edit list presents parts of, as a cut without encoding does."""
    path = folder / f"{kind}.mp4"
    parts = [range(round(start * _RATE), round((start + seconds) * _RATE)) for start, seconds in edits if start >= 0]
    presented = [tick for part in parts for tick in part]
    stated = dict.fromkeys(range(160), 30_000)  # milliseconds; no reader may return a frame outside the parts
    stated |= {tick: index * 1000 // _RATE for index, tick in enumerate(presented)}
    write(path, range(160), time_base=_TICKS, options={**options, "sc_threshold": "0"}, state=stated.__getitem__)
    # The first frame is presented when the B-frames that precede it in the file could be.
    delay = int(options["bf"]) / _RATE
    set_edit_list(path, [(start + delay if start >= 0 else start, seconds) for start, seconds in edits])
    times = tuple(index / _RATE for index in range(len(presented)))
    return TimedVideo(kind, str(path), times, len(presented) / _RATE, True)
