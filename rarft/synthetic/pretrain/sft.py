"""Supervised fine-tuning of the whole model, by cross entropy of target completions."""

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from rarft.models.qwen2_5_vl.per_completion import IGNORE_INDEX, per_completion_batch
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.synthetic import dataset
from rarft.synthetic.pretrain.optimize import optimize
from rarft.synthetic.pretrain.phases import Phase
from rarft.synthetic.pretrain.scenes import build_scene_inputs

_BATCH = 16  # prompts


def _batches(phase: Phase, encoder: PromptEncoder, seed: int) -> Iterator[list[tuple[PromptInputs, Tensor]]]:
    """Yield endless batches of prompts and token ids of their completions."""
    rng = np.random.default_rng(seed)
    tokenizer = encoder.processor.tokenizer
    while True:
        rows = []
        duration = int(rng.integers(8, 17))
        for _ in range(_BATCH):
            scene = dataset.draw_scene(rng, duration)
            query = phase.query(scene, rng)
            ids = [*tokenizer(phase.completion(scene, query, rng))["input_ids"], tokenizer.eos_token_id]
            rows.append((build_scene_inputs(encoder, scene, query), torch.tensor(ids)))
        yield rows


def train_phase(model: torch.nn.Module, encoder: PromptEncoder, phase: Phase, seed: int) -> None:
    """Train the whole model for one phase."""

    def evaluate_batch(rows: list[tuple[PromptInputs, Tensor]]) -> tuple[Tensor, Mapping[str, float]]:
        model_inputs, labels_BL = per_completion_batch(rows, encoder.processor.tokenizer.pad_token_id)
        logits_BLV = model(**model_inputs, use_cache=False).logits[:, :-1].float()
        loss = cross_entropy(logits_BLV.flatten(0, 1), labels_BL[:, 1:].flatten(), ignore_index=IGNORE_INDEX)
        return loss, {"loss": loss.item()}

    model.train()
    batches = partial(_batches, phase, encoder, seed)
    optimize(phase.name, model, None, phase.steps, phase.learning_rate, batches, evaluate_batch)
