"""Prompt settings of a training run, stored next to the weights so that evaluation uses the same ones."""

import copy
import json
import logging
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rarft.checkpoint.source import checkpoint_path
from rarft.errors import InputError
from rarft.prompts import PROMPTS
from rarft.video.sampling import MAX_FRAME_PIXELS, PATCH, FrameSampling

_FILE = "rarft.json"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PromptConfig:
    """Settings of a training run that evaluation must share. The fields have the names of their training flags."""

    prompt: str = PROMPTS["rarft"]  # text of the template
    video_fps: float = FrameSampling.fps
    video_total_pixels: int = FrameSampling.total_pixels  # also if training derived it from `--max_pixels`
    video_min_frame_pixels: int = FrameSampling.min_frame_pixels
    max_completion_length: int = 512  # tokens

    @property
    def sampling(self) -> FrameSampling:
        """Frames of a video that the model sees."""
        return FrameSampling(self.video_fps, self.video_total_pixels, self.video_min_frame_pixels)

    def save(self, checkpoint: Path) -> None:
        """Write the settings into a checkpoint's folder."""
        (checkpoint / _FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    def save_processor(self, processor: Any, checkpoint: Path) -> None:
        """Write a processor that gives frames the sizes of training, in the files that vLLM looks for, too."""
        processor = copy.deepcopy(processor)
        video, tokens = processor.video_processor, self.video_total_pixels / PATCH**2
        video.size = {"shortest_edge": self.video_min_frame_pixels, "longest_edge": MAX_FRAME_PIXELS}
        # The processor takes 90 % of this number as the budget of a video, and divides it among the frames.
        video.cap_pixels_per_frame, video.max_video_tokens = True, math.ceil(tokens / 0.9)
        processor.save_pretrained(checkpoint)
        video.save_pretrained(checkpoint)

    @classmethod
    def load(cls, checkpoint: str) -> "PromptConfig":
        """Read the settings of a checkpoint. Without any, log a line and return the training guide's defaults.

        Raises:
            InputError: The file exists and cannot be read.
        """
        file = Path(checkpoint_path(checkpoint)) / _FILE
        if not file.exists():
            logger.info("%s: has no %s; using the default prompt, frames and lengths", checkpoint, _FILE)
            return cls()
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{file}: cannot be read ({error}); save the checkpoint again or delete the file"
            ) from error
