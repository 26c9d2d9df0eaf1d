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
from rarft.checkpoint.local import DIVERGED, exclude, good_step, is_complete, list_checkpoints, parse_step
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

    Attributes:
        last_finite: The last step that passed; 0 before the first.
    """

    def __init__(self, fp16: bool) -> None:
        """
        Args:
            fp16: Whether gradients are scaled, so that one that overflows is skipped and is not an error.
        """
        self.last_finite = 0
        self._fp16, self._overflows = fp16, 0

    def check(self, step: int, loss: Tensor, grad_norm: Tensor | float | None) -> None:
        """Check one step, at the cost of one small all-reduce and one transfer to the host.

        Args:
            step: Number of the step that is about to be applied, from 1.
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
    """Check all weights of a model, of which each process checks its own part.

    Args:
        model: Model with all of its parameters, trained or not.
        step: Number of the last step that was applied.

    Raises:
        DivergedError: A weight is not finite on some process. It is raised on every process.
    """
    bad = next(
        (name for name, parameter in model.named_parameters() if not _is_finite(_local_values(parameter))), None
    )
    if found := [name for name in all_gather(bad) if name]:
        raise DivergedError(f"step {step}: the weights after it are not finite ({found[0]})")


def exclude_diverged(run: Path, store: S3Folder | None, is_shared: bool, uploader: CheckpointUploader | None) -> str:
    """Exclude the checkpoints of a diverged run that are not known to be good. To be called by all processes.

    Args:
        run: Local folder of the run.
        store: The run's folder in an object store, if it has one.
        is_shared: Whether all machines see `run`.
        uploader: Uploads checkpoints. An upload that has begun is finished first.

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
        remaining += _exclude_local(run, good, reason)
    newest, store_error = broadcast_from_main((max(remaining, default=None), store_error))
    if store_error:
        return f"delete the checkpoints after step {good} in {store} before resuming ({store_error})"
    return "--resume_from_checkpoint auto " + (
        "starts from scratch, because no checkpoint is known to be good"
        if newest is None
        else f"resumes from checkpoint-{newest}, the newest good one"
    )


def _exclude_local(run: Path, good: int, reason: str) -> list[int]:
    """Exclude the local checkpoints after step `good`; return the steps of the complete ones among the others."""
    remaining = []
    for checkpoint in list_checkpoints(run):
        if parse_step(checkpoint.name) > good:
            renamed = exclude(checkpoint, DIVERGED, reason)
            logger.warning("%s renamed to %s", checkpoint.name, renamed.name)
        elif is_complete(checkpoint):
            remaining.append(parse_step(checkpoint.name))
    return remaining
