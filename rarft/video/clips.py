"""Small copies of videos, to embed in a page."""

import io
from fractions import Fraction

import av
import numpy as np

from rarft.video.reader import VideoReader

_HEIGHT = 144  # pixels
_FPS = 4
_MAX_FRAMES = 600  # longer videos have fewer frames per second


def encode_clip(path: str) -> bytes:
    """Return a copy of a video in low resolution, without sound, as an H.264 MP4 file with the same times.

    Args:
        path: Path or URI of the video.

    Raises:
        VideoError: The video cannot be read.
    """
    content = io.BytesIO()
    with VideoReader(path) as video, av.open(content, "w", "mp4") as container:
        duration = video.timeline.duration
        count = max(1, min(round(duration * _FPS), _MAX_FRAMES))
        rate = Fraction(count / duration).limit_denominator(1000) or Fraction(1, 1000)
        height = min(_HEIGHT, video.info.height) // 2 * 2
        width = max(2, round(video.info.width * height / video.info.height / 2) * 2)
        stream = container.add_stream("libx264", rate=rate, options={"crf": "30", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        numbers = video.timeline.frames_at((np.arange(count, dtype=np.float64) + 0.5) / float(rate)).tolist()
        images = {
            number: av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels_HWC), format="rgb24").reformat(
                width, height, "yuv420p"
            )
            for number, pixels_HWC in video.frames(sorted(set(numbers)))
        }
        for index, number in enumerate(numbers):
            frame = images[number]
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return content.getvalue()
