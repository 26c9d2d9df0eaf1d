"""Decode frames of a video, sampled and resized as Qwen2.5-VL expects them.

The number and size of frames follow qwen-vl-utils, so that a checkpoint sees the same frames in training as elsewhere.
Files whose frame rate varies, or whose pixels are not square or not upright, are departures: of these, qwen-vl-utils
gets wrong times, distorted and turned frames.
"""

from dataclasses import dataclass

import numpy as np
import torch
from qwen_vl_utils.vision_process import smart_resize
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from rarft.segments import Segment
from rarft.video.reader import VideoError, VideoReader
from rarft.video.timeline import choose_frames

PATCH = 28  # pixels: 2 x 2 merged patches of 14
MAX_FRAME_PIXELS = 768 * PATCH * PATCH


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


@dataclass(frozen=True)
class Frames:
    """Sampled frames of a video.

    Attributes:
        pixels_TCHW: RGB pixels as uint8, upright, T even, H and W multiples of 28.
        timestamps_T: Presentation times in seconds since the first frame of the file, float64.
        indices: Positions that were sampled, on a grid of `file_fps` per second. In a file of constant frame rate,
            they are the indices of the frames.
        file_fps: Average frames per second of the file.
        file_frames: Number of positions of the file, or of its crop.
    """

    pixels_TCHW: Tensor
    timestamps_T: Tensor
    indices: list[int]
    file_fps: float
    file_frames: int

    @property
    def sample_fps(self) -> float:
        """Sampled frames per second of video."""
        return len(self.indices) / self.file_frames * self.file_fps


def frame_size(height: int, width: int, frames: int, sampling: FrameSampling) -> tuple[int, int]:
    """Return the height and width that frames are resized to, multiples of 28, as qwen-vl-utils computes them.

    Args:
        height: Height of the file's frames in square pixels.
        width: Width of the file's frames in square pixels.
        frames: Number of sampled frames.
        sampling: The pixel budget.

    Raises:
        ValueError: The aspect ratio is above 200, or a side would be shorter than 28 pixels.
    """
    # Two frames make one time step of the grid, hence the factor 2.
    budget = min(MAX_FRAME_PIXELS, sampling.total_pixels / frames * 2)
    largest = max(budget, int(sampling.min_frame_pixels * 1.05))
    size = smart_resize(height, width, PATCH, sampling.min_frame_pixels, largest)
    if 0 in size:
        raise ValueError(f"frames of {width}x{height} have a side below {PATCH} pixels after resizing")
    return size


def read_frames(path: str, sampling: FrameSampling, crop: Segment | None = None) -> Frames:
    """Decode the sampled frames of a video.

    Args:
        path: Path or URI of the video.
        sampling: Sampling and size of the frames.
        crop: Part of the video in seconds; None for all of it.

    Raises:
        VideoError: The video cannot be read or sampled, or a sampled frame cannot be decoded.
    """
    with VideoReader(path) as video:
        try:
            choice = choose_frames(video.timeline, sampling.fps, crop)
            size = frame_size(video.info.height, video.info.width, len(choice.positions), sampling)
        except ValueError as error:
            raise VideoError(f"{path}: cannot be sampled: {error}") from error
        decoded: dict[int, Tensor] = {}
        for number, pixels_HWC in video.frames(choice.frames_T):
            pixels_CHW = torch.from_numpy(np.ascontiguousarray(pixels_HWC)).permute(2, 0, 1)
            decoded[number] = resize(pixels_CHW, list(size), InterpolationMode.BICUBIC, antialias=True)
        return Frames(
            torch.stack([decoded[number] for number in choice.frames_T.tolist()]),
            torch.from_numpy(video.timeline.times_N[choice.frames_T]),
            choice.positions,
            video.timeline.fps,
            choice.total,
        )
