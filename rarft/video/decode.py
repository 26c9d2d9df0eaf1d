"""Frames of a video, sampled and resized as Qwen2.5-VL expects them.

How many frames, and how large: qwen-vl-utils' own rules, so that a checkpoint sees in training what it sees
elsewhere. Decoding is PyAV's, on one thread: videos are decoded side by side, and on small clips FFmpeg's
threads cost twenty times what they bring.
"""

from dataclasses import dataclass

import av
import torch
from qwen_vl_utils.vision_process import calculate_video_frame_range, smart_nframes, smart_resize
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from rarft.segments import Segment
from rarft.video.probe import VideoError, local_video, probe

PATCH = 28  # pixels: a patch of 14, merged two by two


@dataclass(frozen=True)
class FrameSampling:
    """Which frames of a video a model sees.

    Attributes:
        fps: frames per second of video.
        max_pixels: budget of a whole video, qwen-vl-utils' total pixels: 28*28 of it buy one video token.
        min_frame_pixels: least size of a frame in pixels.
    """

    fps: float = 2.0
    max_pixels: int = 12_845_056
    min_frame_pixels: int = 3136


@dataclass(frozen=True)
class Frames:
    """Sampled frames of a video.

    Attributes:
        pixels_TCHW: uint8 RGB, T even, H and W multiples of 28.
        indices: which frames of the file they are.
        file_fps: frames per second of the file.
        file_frames: frames of the file, or of its crop.
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
    """Height and width after resizing, multiples of 28, such that the video stays within its pixel budget."""
    # Two frames make one time step of the grid, hence the factor 2 of qwen-vl-utils' budget.
    largest = max(sampling.max_pixels / frames * 2, int(sampling.min_frame_pixels * 1.05))
    return smart_resize(height, width, PATCH, sampling.min_frame_pixels, largest)


def read_frames(path: str, sampling: FrameSampling, crop: Segment | None = None) -> Frames:
    """Decode the frames that `sampling` picks from the file, or from `crop` (seconds) of it.

    Args:
        path: of the file, or its URI.
        sampling: which frames.
        crop: part of the file; None for all of it.

    Raises:
        VideoError: the file cannot be opened, has no frames, or ends before a frame that it promised.
    """
    with local_video(path) as file:
        return _read_frames(file, path, sampling, crop)


def _read_frames(file: str, path: str, sampling: FrameSampling, crop: Segment | None) -> Frames:
    info = probe(file, path)
    window = {} if crop is None else {"video_start": crop[0], "video_end": crop[1]}
    try:
        first, last, total = calculate_video_frame_range(window, info.frames, info.fps)
        count = smart_nframes({"fps": sampling.fps}, total, info.fps)
    except ValueError as error:
        raise VideoError(f"{path}: cannot be sampled: {error}") from error
    indices = torch.linspace(first, last, count).round().long().tolist()
    size = list(frame_size(info.height, info.width, count, sampling))
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
        raise VideoError(
            f"{path}: holds {info.frames} frames by its index, but frame {min(missing)} cannot be decoded"
        )
    return Frames(torch.stack([decoded[index] for index in indices]), indices, info.fps, total)
