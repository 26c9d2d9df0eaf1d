"""Divergence: a run with a non-finite loss, gradient norm or weight stops before it saves a checkpoint with it.

Every optimizer step is checked before it is applied (DeepSpeed skips a bad one by itself), and the weights are checked
before each save and at the end. All processes decide alike. `docs/training.md` describes what happens to checkpoints.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from rarft.checkpoint import remote
from rarft.checkpoint.local import DIVERGED, exclude_later, good_step
from rarft.checkpoint.uploader import CheckpointUploader
from rarft.distributed.collectives import all_gather, barrier, broadcast_from_main
from rarft.errors import DivergedError
from rarft.storage.location import S3Folder
from rarft.storage.s3 import StoreError

logger = logging.getLogger(__name__)

# Consecutive steps that fp16's loss scaling may skip. It starts at 2^16 and halves after each.
_MAX_OVERFLOWS = 20
_STATES = ("finite", "infinite", "nan")


class StepGuard:
    """Checks the loss and the gradient norm of every optimizer step.

    Args:
        fp16: Whether gradients are scaled, so that one that overflows is skipped and is not an error.

    Attributes:
        last_finite: The last step that passed; 0 before the first.
    """

    def __init__(self, fp16: bool) -> None:
        self.last_finite = 0
        self._fp16, self._overflows = fp16, 0

    def check(self, step: int, loss: Tensor, grad_norm: Tensor | float | None) -> None:
        """Check the step that is to be applied next, at the cost of a small all-reduce and a transfer to the host.

        Args:
            step: Number of the step, from 1.
            loss: This process's loss, shape (). May be a sum over micro-batches or steps.
            grad_norm: Norm of the whole gradient; None if DeepSpeed is configured not to compute it.

        Raises:
            DivergedError: One of them is not finite on some process. It is raised on every process.
        """
        scalars = [loss] if grad_norm is None else [loss, torch.as_tensor(grad_norm, device=loss.device)]
        values = torch.stack([scalar.detach().float() for scalar in scalars])
        states = values.isinf().int() + 2 * values.isnan().int()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(states, torch.distributed.ReduceOp.MAX)
        loss_state, norm_state = [*states.tolist(), 0][:2]
        if self._fp16 and norm_state and not loss_state and self._overflows < _MAX_OVERFLOWS:
            self._overflows += 1
            return
        if loss_state or norm_state:
            named = (("loss", loss_state), ("gradient norm", norm_state))
            problems = " and ".join(f"the {name} is {_STATES[state]}" for name, state in named if state)
            raise DivergedError(f"step {step}: {problems}")
        self.last_finite, self._overflows = step, 0


def _local_values(parameter: Tensor) -> Tensor:
    """Return the values of a parameter on this process; under ZeRO-3 a flat partition, without its padding."""
    partition = getattr(parameter, "ds_tensor", None)
    if partition is None:
        return parameter.detach()
    if partition.status.name != "AVAILABLE":  # swapped out to a disk
        return parameter.detach().new_empty(0)
    start = torch.distributed.get_rank(parameter.ds_process_group) * partition.ds_numel
    return partition.detach().flatten()[: max(0, parameter.ds_numel - start)]


def _is_finite(values: Tensor) -> bool:
    # Minimum and maximum are finite only if all values are, and need no temporary tensor of their size.
    return values.numel() == 0 or bool(torch.stack(torch.aminmax(values)).isfinite().all())


def check_weights(model: Any, step: int) -> None:
    """Check all weights of a model after a step. Each process checks its own part.

    Raises:
        DivergedError: A weight is not finite on some process. It is raised on every process.
    """
    parameters = model.named_parameters()
    bad = next((name for name, parameter in parameters if not _is_finite(_local_values(parameter))), None)
    if found := [name for name in all_gather(bad) if name]:
        raise DivergedError(f"step {step}: the weights after it are not finite ({found[0]})")


def exclude_diverged(run: Path, store: S3Folder | None, is_shared: bool, uploader: CheckpointUploader | None) -> str:
    """Exclude the checkpoints of a diverged run that are not known to be good. To be called by all processes.

    An upload that has begun is finished first.

    Returns:
        The end of the error message: where `--resume_from_checkpoint auto` resumes, or what to do first.
    """
    good = broadcast_from_main(good_step(run))
    reason = f"training diverged, and no later step had been finite; good are the checkpoints up to step {good}"
    remaining: list[int] = []
    store_error = None  # divergence stays the cause that the run ends with
    try:
        if uploader:
            uploader.abandon(good)
    except StoreError as error:
        store_error = str(error)
    barrier()  # no machine uploads any more
    try:
        if PartialState().is_main_process and store:
            remaining = remote.exclude_later(store, good, DIVERGED, reason)
    except StoreError as error:
        store_error = str(error)
    if PartialState().is_main_process and is_shared:
        remaining += exclude_later(run, good, DIVERGED, reason)
    newest, store_error = broadcast_from_main((max(remaining, default=None), store_error))
    if store_error:
        return f"delete the checkpoints after step {good} in {store} before resuming ({store_error})"
    if newest is None:
        return "--resume_from_checkpoint auto starts from scratch, because no checkpoint is known to be good"
    return f"--resume_from_checkpoint auto resumes from checkpoint-{newest}, the newest good one"
