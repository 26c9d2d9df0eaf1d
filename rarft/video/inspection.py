"""Inspect a video file: its properties, and whether the frames that training samples can be decoded."""

from collections.abc import Sequence
from dataclasses import dataclass

from rarft.segments import Segment
from rarft.video.reader import VideoError, VideoInfo, VideoReader
from rarft.video.sampling import FrameSampling, frame_size
from rarft.video.timeline import choose_frames

_SAMPLING = FrameSampling()  # its pixel budget is the one that most runs use


@dataclass(frozen=True)
class Inspection:
    """Result of inspecting a video or its crop.

    Attributes:
        info: Properties of the video; None if it cannot be used at all.
        kind: Kind of the problem that makes it unusable: that of a `VideoError`, or `undecodable`; empty without one.
        problem: The problem in words, without the name of the file.
        damaged: Number of sampled frames that are decoded with errors.
    """

    info: VideoInfo | None
    kind: str = ""
    problem: str = ""
    damaged: int = 0


def inspect_video(path: str, crops: Sequence[Segment | None], fps: float | None) -> list[Inspection]:
    """Inspect a video.

    Args:
        path: Path or URI of the video.
        crops: Parts of the video in seconds; None for all of it.
        fps: Frames per second that training samples, to decode them without resizing; None to decode only one frame.

    Returns:
        An inspection for each crop. A crop of fewer than two frames has no frames to decode, and no problem.

    Raises:
        StoreError: The object store cannot be read.
    """
    try:
        with VideoReader(path, keeps_packets=fps is not None, max_threads=1) as video:
            return _inspect(video, crops, fps)
    except VideoError as error:
        return [Inspection(None, error.kind, str(error).removeprefix(f"{path}: "))] * len(crops)


def _inspect(video: VideoReader, crops: Sequence[Segment | None], fps: float | None) -> list[Inspection]:
    info, chosen = video.info, []
    for crop in crops:
        try:
            chosen.append(set(choose_frames(video.timeline, fps or _SAMPLING.fps, crop).frames_T.tolist()))
        except ValueError:
            chosen.append(set())
    missing, damaged = video.check(set().union(*chosen)) if fps else (set(), set())
    inspections = []
    for numbers in chosen:
        if lost := sorted(numbers & missing):
            seconds = video.timeline.times_N[lost[0]]
            problem = f"{len(lost)} of {len(numbers)} sampled frames cannot be decoded, the first at {seconds:.3f} s"
            inspections.append(Inspection(info, "undecodable", problem))
            continue
        try:
            frame_size(info.height, info.width, max(2, len(numbers)), _SAMPLING)
            inspections.append(Inspection(info, damaged=len(numbers & damaged)))
        except ValueError as error:
            inspections.append(Inspection(info, "frame-size", str(error)))
    return inspections
