"""How a checkpoint was trained to read a prompt, kept beside its weights, so that evaluation reads it alike."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from rarft.checkpoint.locate import checkpoint_path
from rarft.errors import InputError
from rarft.prompts import PROMPTS
from rarft.video.decode import FrameSampling

_FILE = "rarft.json"


@dataclass(frozen=True)
class PromptConfig:
    """Settings of a training run that evaluation must share. The fields have the names of their training flags.

    Attributes:
        prompt: Text of the prompt template.
        video_fps: Frames per second of video.
        video_total_pixels: Pixel budget of a whole video, also where training derived it from `--max_pixels`.
        video_min_frame_pixels: Smallest size of a frame in pixels.
        max_completion_length: Longest completion in tokens.
    """

    prompt: str = PROMPTS["rarft"]
    video_fps: float = FrameSampling.fps
    video_total_pixels: int = FrameSampling.total_pixels
    video_min_frame_pixels: int = FrameSampling.min_frame_pixels
    max_completion_length: int = 512

    @property
    def sampling(self) -> FrameSampling:
        """Which frames of a video are read."""
        return FrameSampling(self.video_fps, self.video_total_pixels, self.video_min_frame_pixels)

    def save(self, checkpoint: Path) -> None:
        """Write the settings into a checkpoint's folder."""
        (checkpoint / _FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @classmethod
    def of(cls, checkpoint: str) -> "PromptConfig":
        """The settings beside a checkpoint's weights; the guide's defaults, told in a line, where there are none.

        Raises:
            InputError: the file is there and cannot be read.
        """
        file = Path(checkpoint_path(checkpoint)) / _FILE
        if not file.exists():
            print(f"{checkpoint}: has no {_FILE}; read with the default prompt, frames and lengths", flush=True)
            return cls()
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{file}: cannot be read ({error}); save the checkpoint again, or remove the file"
            ) from error
