"""Thumbnails of a video at given times."""

import io
from collections.abc import Sequence

import av

from rarft.video.probe import VideoError, open_video


def thumbnails(path: str, times: Sequence[float], height: int = 64) -> list[bytes]:
    """Return JPEG images of the frames at the given times.

    Args:
        path: Path or URI of the video.
        times: Times in seconds. A time after the end gives the last frame.
        height: Height of an image in pixels.

    Raises:
        VideoError: The video cannot be read.
    """
    pending = sorted(set(times))
    images: dict[float, bytes] = {}
    try:
        with open_video(path) as file, av.open(file, metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            previous = None
            for frame in container.decode(stream):
                while previous is not None and pending and frame.time is not None and frame.time > pending[0]:
                    images[pending.pop(0)] = _jpeg(previous, height)
                previous = frame
                if not pending:
                    break
            for time in pending if previous is not None else ():
                images[time] = _jpeg(previous, height)
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise VideoError(f"{path}: cannot be decoded: {error}") from error
    if len(images) < len(set(times)):
        raise VideoError(f"{path}: contains no frames")
    return [images[time] for time in times]


def _jpeg(frame: av.VideoFrame, height: int) -> bytes:
    image = frame.to_image()
    image = image.resize((max(1, round(image.width * height / image.height)), height))
    content = io.BytesIO()
    image.save(content, "JPEG", quality=60)
    return content.getvalue()
