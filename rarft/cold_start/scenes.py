"""Synthetic scenes as the tiny model's prompts: rendered and never encoded as a file."""

import numpy as np
import torch
from numpy.typing import NDArray

from rarft import response, samples
from rarft.qwen.inputs import PromptEncoder, PromptInputs, video_prompt
from rarft.qwen.reading import ReadingSettings
from rarft.response import PROMPTS
from rarft.video.decode import Frames

# Clips of 56x56 pixels are read as they are. The preset `tiny` and the packaged checkpoints have the same values.
READING = ReadingSettings(
    PROMPTS["brief"], video_total_pixels=64 * 56 * 56, video_min_frame_pixels=56 * 56, max_completion_length=64
)


def _indices(scene: samples.Scene) -> NDArray[np.int64]:
    """The frames that are read of the scene's clip, two a second."""
    return torch.linspace(0, scene.duration * samples.FPS - 1, 2 * scene.duration).round().long().numpy()


def frame_times(scene: samples.Scene) -> NDArray[np.float64]:
    """Seconds of the frames that are read of the scene's clip, two for each of its seconds."""
    return _indices(scene) / samples.FPS + 1e-6


def lay_out_scene(encoder: PromptEncoder, scene: samples.Scene, query: samples.Scene) -> PromptInputs:
    """The prompt that asks for one scene's description in another scene's clip."""
    frames = Frames(
        torch.from_numpy(samples.render(scene, frame_times(scene))).permute(0, 3, 1, 2),
        _indices(scene).tolist(),
        float(samples.FPS),
        scene.duration * samples.FPS,
    )
    texts = response.fill_prompt(READING.prompt, query.description, None)
    return encoder.lay_out(video_prompt(*texts, "rendered"), frames)
