"""Synthetic scenes as the tiny model's prompts: rendered and never encoded as a file."""

import numpy as np
import torch
from numpy.typing import NDArray

from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, PromptInputs, video_prompt
from rarft.prompts import PROMPTS, fill_prompt
from rarft.synthetic import dataset
from rarft.video.decode import Frames

# Clips of 56x56 pixels are read as they are. The preset `tiny` and the packaged checkpoints have the same values.
READING = PromptConfig(
    PROMPTS["brief"], video_total_pixels=64 * 56 * 56, video_min_frame_pixels=56 * 56, max_completion_length=64
)


def _indices(scene: dataset.Scene) -> NDArray[np.int64]:
    """The frames that are read of the scene's clip, two a second."""
    return torch.linspace(0, scene.duration * dataset.FPS - 1, 2 * scene.duration).round().long().numpy()


def frame_times(scene: dataset.Scene) -> NDArray[np.float64]:
    """Seconds of the frames that are read of the scene's clip, two for each of its seconds."""
    return _indices(scene) / dataset.FPS + 1e-6


def build_scene_inputs(encoder: PromptEncoder, scene: dataset.Scene, query: dataset.Scene) -> PromptInputs:
    """The prompt that asks for one scene's description in another scene's clip."""
    frames = Frames(
        torch.from_numpy(dataset.render(scene, frame_times(scene))).permute(0, 3, 1, 2),
        _indices(scene).tolist(),
        float(dataset.FPS),
        scene.duration * dataset.FPS,
    )
    texts = fill_prompt(READING.prompt, query.description, None)
    return encoder.build_inputs(video_prompt(*texts, "rendered"), frames)
