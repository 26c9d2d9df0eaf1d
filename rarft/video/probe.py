"""Read the properties of a video file without decoding it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import av

from rarft.errors import InputError
from rarft.storage.location import open_local
from rarft.storage.s3 import ObjectNotFoundError, is_object_uri

VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"}


class VideoError(InputError):
    """A video that cannot be used; the message names it and gives the reason."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video.

    Attributes:
        duration: Duration in seconds.
        fps: Frames per second.
        frames: Number of frames.
        height: Height of a frame in pixels.
        width: Width of a frame in pixels.
    """

    duration: float
    fps: float
    frames: int
    height: int
    width: int


@contextmanager
def open_video(path: str) -> Iterator[str]:
    """Yield a local path of a video; an object in a store is downloaded temporarily.

    Raises:
        VideoError: The object does not exist.
        StoreError: The store cannot be read, which is not an error of the video.
    """
    with ExitStack() as files:
        try:
            local = str(files.enter_context(open_local(path))) if is_object_uri(path) else path
        except ObjectNotFoundError as error:
            raise VideoError(str(error)) from error
        yield local


def probe(path: str, name: str | None = None) -> VideoInfo:
    """Read a video's index. Frames are counted packet by packet, since headers are sometimes wrong.

    Args:
        path: Path or URI of the video.
        name: Name of the video in messages; default: its path.

    Raises:
        VideoError: The file does not exist, is not a video, or has no frames.
    """
    with open_video(path) as file:
        return _probe(file, name or path)


def _probe(file: str, name: str) -> VideoInfo:
    if not Path(file).is_file():
        raise VideoError(f"{name}: no such video")
    try:
        # Metadata such as titles is not used, and not always valid UTF-8.
        with av.open(file, metadata_errors="ignore") as container:
            if not container.streams.video:
                raise VideoError(f"{name}: has no video stream")
            stream = container.streams.video[0]
            frames = sum(1 for packet in container.demux(stream) if packet.size)
            rate = stream.average_rate or stream.guessed_rate
            height, width = stream.codec_context.height, stream.codec_context.width
    except av.error.FFmpegError as error:
        raise VideoError(f"{name}: not a readable video ({error.strerror})") from error
    if not frames or not rate:
        raise VideoError(f"{name}: contains no frames")
    return VideoInfo(frames / float(rate), float(rate), frames, height, width)
