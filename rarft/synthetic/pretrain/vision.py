"""Training of the vision tower alone, on what each second of a clip shows.

A linear layer behind the tower, which is discarded afterwards, predicts for each second which of its two frames show
the shape and, if both do, its color, shape and motion. Every second of every clip has labels: perception that the
language model would learn through its own loss in hours is learned in minutes.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils.data import DataLoader, IterableDataset

from rarft.models.qwen2_5_vl.per_completion import IGNORE_INDEX
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.synthetic import dataset
from rarft.synthetic.pretrain.scenes import build_scene_inputs, frame_times
from rarft.synthetic.pretrain.schedule import warmup_stable_decay

STEPS = 800
LEARNING_RATE = 1.5e-3
_BATCH = 32  # clips
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameLabels:
    """Labels of the S seconds of some clips of equal length.

    Attributes:
        video_ND: Patches of all clips.
        grid_thw_B3: Grid of each clip's patches before merging.
        visible_S2: 1 for each of a second's two frames that shows the shape.
        attributes_S3: Indices of color, shape and motion; `IGNORE_INDEX` unless both frames show the shape.
    """

    video_ND: Tensor
    grid_thw_B3: Tensor
    visible_S2: Tensor
    attributes_S3: Tensor


class ClipStream(IterableDataset):
    """Endless batches of `FrameLabels` of new scenes."""

    def __init__(self, encoder: PromptEncoder, seed: int) -> None:
        self.encoder, self.seed = encoder, seed

    def __iter__(self) -> Iterator[FrameLabels]:
        rng = np.random.default_rng(self.seed)
        while True:
            duration = int(rng.integers(8, 17))
            scenes = [dataset.draw_scene(rng, duration) for _ in range(_BATCH)]
            prompts = [build_scene_inputs(self.encoder, scene, scene) for scene in scenes]
            labels = [second_labels(scene) for scene in scenes]
            yield FrameLabels(
                torch.cat([prompt.video_ND for prompt in prompts]),
                torch.cat([prompt.grid_thw_13 for prompt in prompts]),
                torch.cat([visible for visible, _ in labels]),
                torch.cat([attributes for _, attributes in labels]),
            )


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
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = warmup_stable_decay(optimizer, STEPS)
    stream = iter(DataLoader(ClipStream(encoder, seed), batch_size=None, num_workers=1))
    accuracies = []
    model.train()
    for step in range(1, STEPS + 1):
        batch: FrameLabels = next(stream)
        tokens_ND = tower(batch.video_ND, batch.grid_thw_B3).pooler_output
        seconds_SD = tokens_ND.view(len(batch.visible_S2), -1, tokens_ND.shape[-1]).mean(1)
        visible, *attributes = head(seconds_SD).split(sizes, dim=1)
        loss = binary_cross_entropy_with_logits(visible, batch.visible_S2)
        for logits, labels in zip(attributes, batch.attributes_S3.T, strict=True):
            loss = loss + cross_entropy(logits, labels, ignore_index=IGNORE_INDEX)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        labeled = batch.attributes_S3[:, 0] != IGNORE_INDEX
        predicted = torch.stack([logits.argmax(1) for logits in attributes], dim=1)
        accuracies.append((predicted == batch.attributes_S3)[labeled].float().mean(0))
        if step % 50 == 0:
            means = torch.stack(accuracies[-50:]).mean(0).tolist()
            text = ", ".join(f"{name} {mean:.3f}" for name, mean in zip(dataset.ATTRIBUTES, means, strict=True))
            logger.info("vision tower: step %d/%d, accuracy: %s", step, STEPS, text)
