"""First phase of the cold start: the vision tower alone learns what a second of a clip shows.

A linear layer behind the tower, thrown away afterwards, names for each second which of its two frames show the
shape, and, where both do, its colour, shape and motion. Every second of every clip is a label: perception that
the language model would take hours to find through its own loss is there in minutes.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from torch.utils.data import DataLoader, IterableDataset

from rarft.models.qwen2_5_vl.padding import IGNORE_INDEX
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.synthetic import dataset
from rarft.synthetic.pretrain.scenes import build_scene_inputs, frame_times
from rarft.synthetic.pretrain.schedule import warmup_stable_decay

STEPS = 800
LEARNING_RATE = 1.5e-3
_BATCH = 32  # clips


@dataclass(frozen=True)
class FrameLabels:
    """The S seconds of some clips of equal length, and what they show.

    Attributes:
        video_ND: patches of all clips.
        grid_thw_B3: patches of each clip before merging.
        shown_S2: 1 where a second's frame shows the shape.
        attributes_S3: index of colour, shape and motion; `IGNORE_INDEX` without the shape in both frames.
    """

    video_ND: Tensor
    grid_thw_B3: Tensor
    shown_S2: Tensor
    attributes_S3: Tensor


class ClipStream(IterableDataset):
    """Endless batches of `FrameLabels` of scenes drawn afresh."""

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
                torch.cat([shown for shown, _ in labels]),
                torch.cat([attributes for _, attributes in labels]),
            )


def second_labels(scene: dataset.Scene) -> tuple[Tensor, Tensor]:
    """Which frames of the S seconds of a scene's clip show the shape (S, 2), and its attributes (S, 3)."""
    times = frame_times(scene)
    shown_S2 = torch.from_numpy((scene.segment[0] <= times) & (times < scene.segment[1])).view(-1, 2)
    named = [values.index(getattr(scene, name)) for name, values in dataset.ATTRIBUTES.items()]
    return shown_S2.float(), torch.where(shown_S2.all(1, keepdim=True), torch.tensor(named), IGNORE_INDEX)


def train_tower(model: Any, encoder: PromptEncoder, seed: int) -> None:
    """Train the model's vision tower, and nothing else of it."""
    tower = model.model.visual
    sizes = [2, *(len(values) for values in dataset.ATTRIBUTES.values())]
    head = torch.nn.Linear(tower.config.out_hidden_size, sum(sizes))
    parameters = [*tower.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = warmup_stable_decay(optimizer, STEPS)
    stream = iter(DataLoader(ClipStream(encoder, seed), batch_size=None, num_workers=1))
    started, right = time.monotonic(), []
    model.train()
    for step in range(1, STEPS + 1):
        batch: FrameLabels = next(stream)
        tokens_ND = tower(batch.video_ND, batch.grid_thw_B3).pooler_output
        seconds_SD = tokens_ND.view(len(batch.shown_S2), -1, tokens_ND.shape[-1]).mean(1)
        shown, *attributes = head(seconds_SD).split(sizes, dim=1)
        loss = binary_cross_entropy_with_logits(shown, batch.shown_S2)
        for logits, labels in zip(attributes, batch.attributes_S3.T, strict=True):
            loss = loss + cross_entropy(logits, labels, ignore_index=IGNORE_INDEX)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        known = batch.attributes_S3[:, 0] != IGNORE_INDEX
        guessed = torch.stack([logits.argmax(1) for logits in attributes], dim=1)
        right.append((guessed == batch.attributes_S3)[known].float().mean(0))
        if step % 50 == 0:
            means = torch.stack(right[-50:]).mean(0).tolist()
            named = ", ".join(f"{name} {mean:.3f}" for name, mean in zip(dataset.ATTRIBUTES, means, strict=True))
            print(f"vision tower: step {step}/{STEPS}, right: {named}, {time.monotonic() - started:.0f} s", flush=True)
