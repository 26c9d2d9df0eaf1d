"""Optimization loop of pretraining."""

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset

_WARMUP_STEPS = 50
_FINAL_FACTOR = 0.02
_LOG_STEPS = 50
logger = logging.getLogger(__name__)


class _Stream(IterableDataset):
    def __init__(self, batches: Callable[[], Iterator[Any]]) -> None:
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        return self._batches()


def optimize(
    name: str,
    module: torch.nn.Module,
    head: torch.nn.Module | None,
    steps: int,
    learning_rate: float,
    batches: Callable[[], Iterator[Any]],
    evaluate_batch: Callable[[Any], tuple[Tensor, Mapping[str, float]]],
) -> None:
    """Train with AdamW: 50 steps of warmup, a plateau until half of the steps, and a linear decay to 2 %.

    Args:
        name: Name of the phase in log lines.
        module: Module to train; its gradients are clipped.
        head: Another module to train.
        steps: Number of optimizer steps.
        learning_rate: Learning rate of the plateau.
        batches: Function that returns endless batches; a worker process calls it.
        evaluate_batch: Function of a batch that returns the loss, and values to log by name.
    """

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / _WARMUP_STEPS) * min(1.0, max(_FINAL_FACTOR, 2 * (1 - step / steps)))

    parameters = [*module.parameters(), *(head.parameters() if head is not None else ())]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = LambdaLR(optimizer, factor)
    stream = iter(DataLoader(_Stream(batches), batch_size=None, num_workers=1))
    recent: list[Mapping[str, float]] = []
    for step in range(1, steps + 1):
        loss, values = evaluate_batch(next(stream))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        recent.append(values)
        if step % _LOG_STEPS == 0:
            means = {key: sum(each[key] for each in recent) / len(recent) for key in values}
            text = ", ".join(f"{key} {mean:.4f}" for key, mean in means.items())
            logger.info("%s: step %d/%d, %s", name, step, steps, text)
            recent.clear()
