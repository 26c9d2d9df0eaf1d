"""Presentation times of a video's frames, and the choice of frames by them. Needs neither PyAV nor torch.

The number of frames and their spacing follow qwen-vl-utils. It spaces indices of frames evenly, which gives wrong
times where the frame rate varies. Such a file is sampled on a grid of as many positions as it has frames, spread
evenly over its duration: each position takes the frame that is displayed at its time.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rarft.segments import Segment

_FRAME_FACTOR = 2  # frames of a time step; a video has a whole number of steps
_MIN_FRAMES = 4
MAX_FRAMES = 768
_MAX_TOLERANCE = 1e-3  # seconds


@dataclass(frozen=True)
class Timeline:
    """Presentation times of N frames.

    Attributes:
        times_N: Seconds since the first presented frame, increasing.
        duration: Time from the first frame to the end of the last one in seconds.
        fps: Frames per second of the grid that frames are sampled on: the declared rate if the frames keep to it,
            else the average rate.
        is_constant: Whether frame k is presented at k / fps, to the nearest frame.
        tolerance: Largest rounding error of a presentation time in seconds.
    """

    times_N: NDArray[np.float64]
    duration: float
    fps: float
    is_constant: bool
    tolerance: float = 0.0

    @classmethod
    def of(
        cls, times_N: NDArray[np.float64], declared_fps: float | None, last_duration: float | None, tick: float
    ) -> "Timeline":
        """Find the frame rate of a video.

        Args:
            times_N: Seconds since the first presented frame, increasing.
            declared_fps: Frame rate that the file declares; None if it declares none.
            last_duration: Seconds that the last frame is presented for; None if unknown.
            tick: Unit of time of the file in seconds.
        """
        frames = len(times_N)
        if declared_fps and keeps_rate(times_N, declared_fps):
            return cls(times_N, frames / declared_fps, declared_fps, True)
        if not last_duration:
            last_duration = float(np.median(np.diff(times_N))) if frames > 1 else 1.0
        duration = float(times_N[-1]) + last_duration
        return cls(times_N, duration, frames / duration, False, min(tick, _MAX_TOLERANCE))

    @property
    def is_variable(self) -> bool:
        """Return True if the frame rate varies; a constant rate may differ from the one that the file declares."""
        times_N = self.times_N
        return not self.is_constant and not keeps_rate(times_N, (len(times_N) - 1) / max(float(times_N[-1]), 1e-9))

    def frames_at(self, seconds_T: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the number of the frame that is displayed at each time; the first frame before the start."""
        return np.maximum(np.searchsorted(self.times_N, seconds_T + self.tolerance, side="right") - 1, 0)


@dataclass(frozen=True)
class FrameChoice:
    """The T sampled frames of a video or of its crop.

    Attributes:
        positions: Positions on the grid of `Timeline.fps`; of a file of constant rate, the numbers of the frames.
        total: Number of positions of the video or crop.
        frames_T: Numbers of the frames. A frame that is displayed for long may be repeated.
    """

    positions: list[int]
    total: int
    frames_T: NDArray[np.int64]


def keeps_rate(times_N: NDArray[np.float64], fps: float) -> bool:
    """Check whether each frame k is the one nearest to the time k / fps."""
    return bool(np.all(np.abs(times_N * fps - np.arange(len(times_N))) < 0.5))


def crop_positions(timeline: Timeline, crop: Segment | None) -> tuple[int, int]:
    """Return the first and last position on the grid of a crop, as qwen-vl-utils computes them.

    Raises:
        ValueError: The crop contains fewer than two positions.
    """
    frames = len(timeline.times_N)
    if crop is None:
        return 0, frames - 1
    start, end = (max(0.0, min(seconds, frames / timeline.fps)) for seconds in crop)
    first, last = math.ceil(start * timeline.fps), min(math.floor(end * timeline.fps), frames - 1)
    if first >= last:
        raise ValueError(f"the crop {crop[0]:g} to {crop[1]:g} s has fewer than {_FRAME_FACTOR} frames")
    return first, last


def sample_count(total: int, file_fps: float, fps: float) -> int:
    """Return the number of frames to sample, an even number, as qwen-vl-utils computes it.

    Args:
        total: Number of positions to sample from.
        file_fps: Positions per second.
        fps: Frames to sample per second.

    Raises:
        ValueError: There are fewer than two frames.
    """
    bound = min(MAX_FRAMES, total) // _FRAME_FACTOR * _FRAME_FACTOR
    count = int(min(max(total / file_fps * fps, _MIN_FRAMES), bound)) // _FRAME_FACTOR * _FRAME_FACTOR
    if count < _FRAME_FACTOR:
        raise ValueError(f"it has {total} frame(s), and at least {_FRAME_FACTOR} are needed")
    return count


def even_positions(first: int, last: int, count: int) -> NDArray[np.int64]:
    """Return `count` positions from `first` to `last`, equal to `torch.linspace(first, last, count).round()`.

    torch computes in float32, from either end to the middle, each with one rounding (a fused multiply-add). In videos
    of more than some 10,000 frames, that differs by a frame from the exact result.
    """
    step = np.float64(np.float32(last - first) / np.float32(count - 1))
    index = np.arange(count)
    exact = np.where(index < count // 2, first + step * index, last - step * (count - 1 - index))
    return exact.astype(np.float32).round().astype(np.int64)


def choose_frames(timeline: Timeline, fps: float, crop: Segment | None = None) -> FrameChoice:
    """Choose evenly spaced frames.

    Args:
        timeline: Presentation times of the video.
        fps: Frames to sample per second.
        crop: Part of the video in seconds since the first presented frame; None for all of it.

    Raises:
        ValueError: The video or crop has fewer than two frames.
    """
    first, last = crop_positions(timeline, crop)
    total = last - first + 1
    positions_T = even_positions(first, last, sample_count(total, timeline.fps, fps))
    frames_T = positions_T if timeline.is_constant else timeline.frames_at(positions_T / timeline.fps)
    return FrameChoice(positions_T.tolist(), total, frames_T)
