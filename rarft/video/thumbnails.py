"""Thumbnails of a video at given times."""

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rarft.video.reader import VideoReader


def thumbnails(path: str, times: Sequence[float], height: int = 64) -> list[bytes]:
    """Return JPEG images of the frames that are displayed at the given times.

    Args:
        path: Path or URI of the video.
        times: Times in seconds since the first frame. A time after the end gives the last frame.
        height: Height of an image in pixels.

    Raises:
        VideoError: The video cannot be read.
    """
    with VideoReader(path) as video:
        numbers = video.timeline.frames_at(np.array(times, np.float64)).tolist()
        size = (max(1, round(video.info.width * height / video.info.height)), height)
        images = {number: _jpeg(pixels_HWC, size) for number, pixels_HWC in video.frames(numbers)}
    return [images[number] for number in numbers]


def _jpeg(pixels_HWC: NDArray[np.uint8], size: tuple[int, int]) -> bytes:
    content = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels_HWC)).resize(size).save(content, "JPEG", quality=60)
    return content.getvalue()
