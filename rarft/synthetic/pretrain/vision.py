"""Training of the vision tower alone, on what each second of a clip shows.

A linear layer behind the tower, which is discarded afterwards, predicts for each second which of its two frames show
the shape and, if both do, its color, shape and motion. Every second of every clip has labels: perception that the
language model would learn through its own loss in hours is learned in minutes.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from rarft.models.qwen2_5_vl.per_completion import IGNORE_INDEX
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.synthetic import dataset
from rarft.synthetic.pretrain.optimize import optimize
from rarft.synthetic.pretrain.scenes import build_scene_inputs, frame_times

STEPS = 800
LEARNING_RATE = 1.5e-3
_BATCH = 32  # clips


@dataclass(frozen=True)
class FrameLabels:
    """Patches and labels of the S seconds of some clips of equal length."""

    video_ND: Tensor  # patches of all clips
    grid_thw_B3: Tensor  # each clip's grid of patches before merging
    visible_S2: Tensor  # 1 for each of a second's two frames that shows the shape
    attributes_S3: Tensor  # indices of color, shape and motion; `IGNORE_INDEX` unless both frames show the shape


def _batches(encoder: PromptEncoder, seed: int) -> Iterator[FrameLabels]:
    """Yield endless batches of new scenes."""
    rng = np.random.default_rng(seed)
    while True:
        duration = int(rng.integers(8, 17))
        scenes = [dataset.draw_scene(rng, duration) for _ in range(_BATCH)]
        prompts = [build_scene_inputs(encoder, scene, scene) for scene in scenes]
        visible, attributes = zip(*map(second_labels, scenes), strict=True)
        patches = torch.cat([prompt.video_ND for prompt in prompts])
        grids = torch.cat([prompt.grid_thw_13 for prompt in prompts])
        yield FrameLabels(patches, grids, torch.cat(visible), torch.cat(attributes))


def second_labels(scene: dataset.Scene) -> tuple[Tensor, Tensor]:
    """Return, for the S seconds of a clip, which frames show the shape (S, 2), and its attributes (S, 3)."""
    times = frame_times(scene)
    visible_S2 = torch.from_numpy((scene.segment[0] <= times) & (times < scene.segment[1])).view(-1, 2)
    attributes = [values.index(getattr(scene, name)) for name, values in dataset.ATTRIBUTES.items()]
    attributes_S3 = torch.where(visible_S2.all(1, keepdim=True), torch.tensor(attributes), IGNORE_INDEX)
    return visible_S2.float(), attributes_S3


def train_vision_tower(model: Any, encoder: PromptEncoder, seed: int) -> None:
    """Train only the model's vision tower."""
    tower = model.model.visual
    sizes = [2, *(len(values) for values in dataset.ATTRIBUTES.values())]
    head = torch.nn.Linear(tower.config.out_hidden_size, sum(sizes))

    def evaluate_batch(batch: FrameLabels) -> tuple[Tensor, Mapping[str, float]]:
        tokens_ND = tower(batch.video_ND, batch.grid_thw_B3).pooler_output
        seconds_SD = tokens_ND.view(len(batch.visible_S2), -1, tokens_ND.shape[-1]).mean(1)
        visible, *attributes = head(seconds_SD).split(sizes, dim=1)
        loss = binary_cross_entropy_with_logits(visible, batch.visible_S2)
        accuracies = {}
        for name, logits, labels in zip(dataset.ATTRIBUTES, attributes, batch.attributes_S3.T, strict=True):
            loss = loss + cross_entropy(logits, labels, ignore_index=IGNORE_INDEX)
            is_labeled = labels != IGNORE_INDEX
            accuracies[f"{name} accuracy"] = (logits.argmax(1) == labels)[is_labeled].float().mean().item()
        return loss, accuracies

    model.train()
    optimize("vision tower", tower, head, STEPS, LEARNING_RATE, partial(_batches, encoder, seed), evaluate_batch)
