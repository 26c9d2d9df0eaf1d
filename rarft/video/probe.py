"""What a video file is, without decoding it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import av

from rarft.errors import InputError
from rarft.storage.files import open_local
from rarft.storage.s3 import ObjectNotFoundError, is_object_uri

VIDEO_SUFFIXES = {".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".ts", ".flv", ".wmv"}


class VideoError(InputError):
    """A video that cannot be used; the message names it and says why."""


@dataclass(frozen=True)
class VideoInfo:
    """Duration in seconds, frames per second, number of frames, height and width in pixels."""

    duration: float
    fps: float
    frames: int
    height: int
    width: int


@contextmanager
def local_video(path: str) -> Iterator[str]:
    """Yield a local file of the video; an object of a store is downloaded for as long as that lasts.

    Raises:
        VideoError: the store has not got it.
        StoreError: the store cannot be read; that is no fault of the video's.
    """
    with ExitStack() as files:
        try:
            local = str(files.enter_context(open_local(path, "video"))) if is_object_uri(path) else path
        except ObjectNotFoundError as error:
            raise VideoError(str(error)) from error
        yield local


def probe(path: str, name: str | None = None) -> VideoInfo:
    """Read a video's index. Frames are counted packet by packet, since headers are sometimes wrong.

    Args:
        path: of a file, or its URI.
        name: what messages call it, where that is not its path.

    Raises:
        VideoError: missing, no video, no picture stream, or not a single frame.
    """
    with local_video(path) as file:
        return _probe(file, name or path)


def _probe(file: str, path: str) -> VideoInfo:
    if not Path(file).is_file():
        raise VideoError(f"{path}: no such video")
    try:
        # Titles and the like are not looked at, and are not always UTF-8.
        with av.open(file, metadata_errors="ignore") as container:
            if not container.streams.video:
                raise VideoError(f"{path}: has no picture stream")
            stream = container.streams.video[0]
            frames = sum(1 for packet in container.demux(stream) if packet.size)
            rate = stream.average_rate or stream.guessed_rate
            height, width = stream.codec_context.height, stream.codec_context.width
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: is no readable video: {error.strerror}") from error
    if not frames or not rate:
        raise VideoError(f"{path}: holds not a single frame")
    return VideoInfo(frames / float(rate), float(rate), frames, height, width)
