"""Sizes of prompts in tokens, known before a video is decoded, for engines that reserve memory for the largest one."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rarft.annotations.schema import Sample
from rarft.errors import InputError
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt
from rarft.prompts import fill_prompt
from rarft.segments import Segment
from rarft.video.decode import plan_frames
from rarft.video.reader import VideoError, VideoReader
from rarft.video.sampling import MAX_FRAME_PIXELS, PATCH, FrameSampling
from rarft.video.timeline import MAX_FRAMES

_TOKEN_PIXELS = PATCH * PATCH  # of the two frames of a time step
_DURATION_TOLERANCE = 1.02  # annotated durations are rounded
_MAX_ASPECT = 4  # of frames that are enlarged to the minimum size


@dataclass(frozen=True)
class PromptSize:
    """Largest numbers of tokens of a run: of a video (an upper bound), of a text, and of a completion."""

    video: int
    text: int
    completion: int

    @property
    def total(self) -> int:
        """Return the length of a prompt with its completion."""
        return self.video + self.text + self.completion


def max_video_tokens(seconds: float | None, sampling: FrameSampling) -> int:
    """Return an upper bound of the tokens of a video, or of a part of one, without opening it."""
    frames = MAX_FRAMES
    if seconds is not None:
        frames = min(frames, max(4, 2 * math.ceil(seconds * _DURATION_TOLERANCE * sampling.fps / 2) + 2))
    steps = frames // 2
    # Small frames are enlarged to the minimum size, and each side is rounded up.
    smallest = sampling.min_frame_pixels / _TOKEN_PIXELS
    sides = math.sqrt(smallest) * (math.sqrt(_MAX_ASPECT) + 1 / math.sqrt(_MAX_ASPECT))
    enlarged = math.floor(smallest + sides + 1)
    return max(min(sampling.total_pixels, steps * MAX_FRAME_PIXELS) // _TOKEN_PIXELS, steps * enlarged)


def count_video_tokens(path: str, sampling: FrameSampling, crop: Segment | None = None) -> int:
    """Return the number of tokens of a video, or of its crop; frames are not decoded."""
    with VideoReader(path, keeps_packets=False) as video:
        choice, (height, width) = plan_frames(video, sampling, crop)
    return len(choice.positions) // 2 * (height // PATCH) * (width // PATCH)


def largest_prompt(
    samples: Sequence[Sample], encoder: PromptEncoder, template: str, completion: int, limit: int
) -> PromptSize:
    """Return the size of the largest prompt of the samples.

    A video that may exceed the limit is opened. One that cannot be read is ignored, because it is skipped later.

    Raises:
        InputError: A prompt with its completion has more than `limit` tokens.
    """
    most_video, most_text = 0, 0
    for sample in samples:
        texts = fill_prompt(template, sample.query, sample.duration, sample.crop)
        text = encoder.count_text_tokens(video_prompt(*texts, sample.video, sample.crop))
        seconds = sample.crop[1] - sample.crop[0] if sample.crop else sample.duration
        video = max_video_tokens(seconds, encoder.sampling)
        if video + text + completion > limit:
            try:
                video = count_video_tokens(sample.video, encoder.sampling, sample.crop)
            except VideoError:
                continue
            if video + text + completion > limit:
                raise InputError(
                    f"{sample.video}: the prompt of {sample.id} has {video} video and {text} text tokens, with a "
                    f"completion of {completion} more than the {limit} of the engine; lower the pixel budget or "
                    "the frames per second, or raise --vllm_max_model_length up to what the model supports"
                )
        most_video, most_text = max(most_video, video), max(most_text, text)
    return PromptSize(most_video, most_text, completion)
