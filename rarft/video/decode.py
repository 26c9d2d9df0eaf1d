"""Decode frames of a video, sampled and resized as Qwen2.5-VL expects them.

The number and size of frames follow qwen-vl-utils, so that a checkpoint sees the same frames in training as elsewhere.
Files whose frame rate varies, or whose pixels are not square or not upright, are departures: of these, qwen-vl-utils
gets wrong times, distorted and turned frames.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from rarft.segments import Segment
from rarft.video.reader import VideoError, VideoReader
from rarft.video.sampling import FrameSampling, frame_size
from rarft.video.timeline import FrameChoice, choose_frames


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


def plan_frames(
    video: VideoReader, sampling: FrameSampling, crop: Segment | None = None
) -> tuple[FrameChoice, tuple[int, int]]:
    """Return the sampled frames of an open video, and the height and width that they are resized to.

    Raises:
        ValueError: The video cannot be sampled.
    """
    choice = choose_frames(video.timeline, sampling.fps, crop)
    return choice, frame_size(video.info.height, video.info.width, len(choice.positions), sampling)


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
            choice, size = plan_frames(video, sampling, crop)
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
