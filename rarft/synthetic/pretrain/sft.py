"""Supervised fine-tuning of the whole model, by cross entropy of target completions."""

import logging
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, IterableDataset

from rarft.models.qwen2_5_vl.per_completion import IGNORE_INDEX, per_completion_batch
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.synthetic import dataset
from rarft.synthetic.pretrain.phases import Phase
from rarft.synthetic.pretrain.scenes import build_scene_inputs
from rarft.synthetic.pretrain.schedule import warmup_stable_decay

_BATCH = 16  # prompts
logger = logging.getLogger(__name__)


class SceneStream(IterableDataset):
    """Endless batches of (prompt, token ids of the completion) for a phase."""

    def __init__(self, phase: Phase, encoder: PromptEncoder, seed: int) -> None:
        self.phase, self.encoder, self.seed = phase, encoder, seed

    def __iter__(self) -> Iterator[list[tuple[PromptInputs, torch.Tensor]]]:
        rng = np.random.default_rng(self.seed)
        tokenizer = self.encoder.processor.tokenizer
        while True:
            rows = []
            duration = int(rng.integers(8, 17))
            for _ in range(_BATCH):
                scene = dataset.draw_scene(rng, duration)
                query = self.phase.query(scene, rng)
                ids = [*tokenizer(self.phase.completion(scene, query, rng))["input_ids"], tokenizer.eos_token_id]
                rows.append((build_scene_inputs(self.encoder, scene, query), torch.tensor(ids)))
            yield rows


def train_phase(model: torch.nn.Module, encoder: PromptEncoder, phase: Phase, seed: int) -> None:
    """Train the whole model for one phase."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=phase.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = warmup_stable_decay(optimizer, phase.steps)
    pad = encoder.processor.tokenizer.pad_token_id
    stream = iter(DataLoader(SceneStream(phase, encoder, seed), batch_size=None, num_workers=1))
    losses = []
    model.train()
    for step in range(1, phase.steps + 1):
        model_inputs, labels_BL = per_completion_batch(next(stream), pad)
        logits_BLV = model(**model_inputs, use_cache=False).logits[:, :-1].float()
        loss = cross_entropy(logits_BLV.flatten(0, 1), labels_BL[:, 1:].flatten(), ignore_index=IGNORE_INDEX)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        if step % 50 == 0:
            logger.info("%s: step %d/%d, loss %.4f", phase.name, step, phase.steps, sum(losses[-50:]) / 50)
