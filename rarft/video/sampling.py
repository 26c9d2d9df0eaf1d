"""Number and size of the frames that Qwen2.5-VL sees, as qwen-vl-utils computes them. Needs neither PyAV nor torch."""

import math
from dataclasses import dataclass

PATCH = 28  # pixels: 2 x 2 merged patches of 14
MAX_FRAME_PIXELS = 768 * PATCH * PATCH
MAX_ASPECT_RATIO = 200


@dataclass(frozen=True)
class FrameSampling:
    """Sampling and size of the frames that a model sees. The defaults are those of the published training code.

    Attributes:
        fps: Frames per second of video.
        total_pixels: Pixel budget of a whole video. The two frames of a time step count once, so 28 * 28 pixels cost
            one video token.
        min_frame_pixels: Smallest size of a frame in pixels. It takes precedence over the budget.
    """

    fps: float = 2.0
    total_pixels: int = 3584 * PATCH * PATCH
    min_frame_pixels: int = 16 * PATCH * PATCH


def frame_size(height: int, width: int, frames: int, sampling: FrameSampling) -> tuple[int, int]:
    """Return the height and width that frames are resized to, multiples of 28.

    Args:
        height: Height of the file's frames in square pixels.
        width: Width of the file's frames in square pixels.
        frames: Number of sampled frames.
        sampling: The pixel budget.

    Raises:
        ValueError: The aspect ratio is above 200, or a side would be shorter than 28 pixels.
    """
    if max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        raise ValueError(f"frames of {width}x{height} exceed the aspect ratio {MAX_ASPECT_RATIO}")
    # Two frames make one time step of the grid, hence the factor 2.
    budget = min(MAX_FRAME_PIXELS, sampling.total_pixels / frames * 2)
    largest = max(budget, int(sampling.min_frame_pixels * 1.05))
    rows, columns = (max(1, round(side / PATCH)) for side in (height, width))
    pixels = rows * columns * PATCH * PATCH
    if pixels > largest:
        shrink = math.sqrt(height * width / largest)
        rows, columns = (math.floor(side / shrink / PATCH) for side in (height, width))
    elif pixels < sampling.min_frame_pixels:
        enlarge = math.sqrt(sampling.min_frame_pixels / (height * width))
        rows, columns = (math.ceil(side * enlarge / PATCH) for side in (height, width))
    if not rows or not columns:
        raise ValueError(f"frames of {width}x{height} have a side below {PATCH} pixels after resizing")
    return rows * PATCH, columns * PATCH
