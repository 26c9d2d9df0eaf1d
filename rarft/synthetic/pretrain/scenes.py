"""Synthetic scenes as prompts of the tiny model, rendered without encoding a video file."""

import numpy as np
import torch
from numpy.typing import NDArray

from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.prompts import PROMPTS, fill_prompt
from rarft.synthetic import dataset
from rarft.video.decode import Frames

# Clips of 56x56 pixels are not resized. The preset `tiny` and the packaged checkpoints have the same values.
PROMPT_CONFIG = PromptConfig(
    PROMPTS["brief"], video_total_pixels=64 * 56 * 56, video_min_frame_pixels=56 * 56, max_completion_length=64
)


def _indices(scene: dataset.Scene) -> NDArray[np.int64]:
    """Return the indices of the sampled frames of the scene's clip, two per second."""
    return torch.linspace(0, scene.duration * dataset.FPS - 1, 2 * scene.duration).round().long().numpy()


def frame_times(scene: dataset.Scene) -> NDArray[np.float64]:
    """Return the times of the sampled frames in seconds."""
    return _indices(scene) / dataset.FPS + 1e-6


def build_scene_inputs(encoder: PromptEncoder, scene: dataset.Scene, query: dataset.Scene) -> PromptInputs:
    """Return the inputs of the prompt that asks for `query` in the clip of `scene`."""
    indices = _indices(scene)
    frames = Frames(
        torch.from_numpy(dataset.render(scene, frame_times(scene))).permute(0, 3, 1, 2),
        torch.from_numpy(indices / dataset.FPS),
        indices.tolist(),
        float(dataset.FPS),
        scene.duration * dataset.FPS,
    )
    texts = fill_prompt(PROMPT_CONFIG.prompt, query.description, None)
    return encoder.build_inputs(video_prompt(*texts, "rendered"), frames)
