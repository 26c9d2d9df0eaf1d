"""Decode frames of a video, sampled and resized as Qwen2.5-VL expects them.

The number and size of frames follow qwen-vl-utils, so that a checkpoint sees the same frames in training as elsewhere.
PyAV decodes on one thread: several videos are decoded in parallel, and on short clips FFmpeg's threads cost twenty
times what they gain.
"""

from dataclasses import dataclass

import av
import torch
from qwen_vl_utils.vision_process import calculate_video_frame_range, smart_nframes, smart_resize
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from rarft.segments import Segment
from rarft.video.probe import VideoError, open_video, probe

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
        pixels_TCHW: RGB pixels as uint8, T even, H and W multiples of 28.
        indices: Indices of the frames in the file.
        file_fps: Frames per second of the file.
        file_frames: Number of frames of the file, or of its crop.
    """

    pixels_TCHW: Tensor
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
        height: Height of the file's frames in pixels.
        width: Width of the file's frames in pixels.
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
        VideoError: The file cannot be opened, has no frames, or ends before a sampled frame.
    """
    with open_video(path) as file:
        return _read_frames(file, path, sampling, crop)


def _read_frames(file: str, path: str, sampling: FrameSampling, crop: Segment | None) -> Frames:
    info = probe(file, path)
    window = {} if crop is None else {"video_start": crop[0], "video_end": crop[1]}
    try:
        first, last, total = calculate_video_frame_range(window, info.frames, info.fps)
        count = smart_nframes({"fps": sampling.fps}, total, info.fps)
        size = list(frame_size(info.height, info.width, count, sampling))
    except ValueError as error:
        raise VideoError(f"{path}: cannot be sampled: {error}") from error
    indices = torch.linspace(first, last, count).round().long().tolist()
    wanted = set(indices)
    decoded: dict[int, Tensor] = {}
    try:
        with av.open(file, metadata_errors="ignore") as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1
            stream.thread_type = "NONE"
            for index, frame in enumerate(container.decode(stream)):
                if index in wanted:
                    pixels = torch.from_numpy(frame.to_ndarray(format="rgb24", threads=1)).permute(2, 0, 1)
                    decoded[index] = resize(pixels, size, InterpolationMode.BICUBIC, antialias=True)
                if index >= indices[-1]:
                    break
    except av.error.FFmpegError as error:
        raise VideoError(f"{path}: cannot be decoded: {error}") from error
    if missing := wanted - decoded.keys():
        raise VideoError(f"{path}: its index lists {info.frames} frames, but frame {min(missing)} cannot be decoded")
    return Frames(torch.stack([decoded[index] for index in indices]), indices, info.fps, total)
