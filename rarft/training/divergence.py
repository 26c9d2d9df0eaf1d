"""Stop a run whose loss, gradient norm or weights are not finite, before a checkpoint or the final model holds them.

Every optimizer step is checked before it is applied (DeepSpeed skips a bad one by itself), and the weights are checked
before each save and at the end. All processes decide alike. `docs/training.md` says what becomes of the checkpoints.
"""

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import Tensor

from rarft.checkpoint import remote
from rarft.checkpoint.local import DIVERGED, checkpoints_of, exclude, good_step, is_complete, step_of
from rarft.checkpoint.uploader import CheckpointUploader
from rarft.distributed.collectives import all_gather, barrier, broadcast_from_main
from rarft.errors import DivergedError
from rarft.storage import s3

# Steps in a row that fp16's loss scaling may skip: it halves its scale, 2^16 at first, after each.
_MOST_OVERFLOWS = 20
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
        """Check one step. One small all-reduce and one transfer to the host.

        Args:
            step: Number of the step that is about to be applied, from 1.
            loss: This process's loss, shape (); a sum over micro-batches or steps will do.
            grad_norm: Norm of the whole gradient; None where DeepSpeed is configured not to compute it.

        Raises:
            DivergedError: One of them is not finite on some process; on every process alike.
        """
        figures = [loss] if grad_norm is None else [loss, torch.as_tensor(grad_norm, device=loss.device)]
        values = torch.stack([figure.detach().float() for figure in figures])
        states = values.isinf().int() + 2 * values.isnan().int()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(states, torch.distributed.ReduceOp.MAX)
        of_loss, of_norm = [*states.tolist(), 0][:2]
        if self._fp16 and of_norm and not of_loss and self._overflows < _MOST_OVERFLOWS:
            self._overflows += 1
            return
        if of_loss or of_norm:
            named = (("loss", of_loss), ("gradient norm", of_norm))
            wrong = " and ".join(f"the {name} is {_STATES[state]}" for name, state in named if state)
            raise DivergedError(f"step {step}: {wrong}")
        self.last_finite, self._overflows = step, 0


def _own_part(parameter: Tensor) -> Tensor:
    """Return the values of a parameter that this process holds; under ZeRO-3 a flat part, without its padding."""
    part = getattr(parameter, "ds_tensor", None)
    if part is None:
        return parameter.detach()
    if part.status.name != "AVAILABLE":  # swapped out to a disk
        return parameter.detach().new_empty(0)
    start = torch.distributed.get_rank(parameter.ds_process_group) * part.ds_numel  # type: ignore[attr-defined]
    return part.detach().flatten()[: max(0, parameter.ds_numel - start)]  # type: ignore[attr-defined]


def _is_finite(values: Tensor) -> bool:
    # The extremes are as finite as the whole, and need no temporary of its size.
    return values.numel() == 0 or bool(torch.stack(torch.aminmax(values)).isfinite().all())


def check_weights(model: Any, step: int) -> None:
    """Check all weights of a model, each process its own part.

    Args:
        model: With all of its parameters, trained or not.
        step: Number of the last step that was applied.

    Raises:
        DivergedError: One of them is not finite on some process; on every process alike.
    """
    bad = next((name for name, parameter in model.named_parameters() if not _is_finite(_own_part(parameter))), None)
    if found := [name for name in all_gather(bad) if name]:
        raise DivergedError(f"step {step}: the weights after it are not finite ({found[0]})")


def _set_aside_in_store(store: str, good: int, reason: str) -> list[int]:
    """Mark the checkpoints after step `good` as diverged; return the steps of the others."""
    steps = remote.steps_held(store)
    for step in steps:
        if step > good:
            remote.exclude(remote.checkpoint_uri(store, step), DIVERGED, reason)
            print(f"training: {remote.checkpoint_uri(store, step)} marked as diverged", flush=True)
    return [step for step in steps if step <= good]


def leave_good_checkpoints(run: Path, store: str | None, shared: bool, uploads: CheckpointUploader | None) -> str:
    """Set the checkpoints of a diverged run aside that are not known to be good. To be called by all processes.

    Args:
        run: The run's folder on this machine.
        store: Its folder in an object store, if it has one.
        shared: Whether all machines see `run`.
        uploads: Sends checkpoints; one that is under way is sent to its end first.

    Returns:
        Where `--resume_from_checkpoint auto` resumes, or what to do first, for the message.
    """
    good = broadcast_from_main(good_step(run))
    reason = f"training diverged, and no later step had been finite; good are the checkpoints up to step {good}"
    left: list[int] = []
    refused = None  # by the store: the divergence stays the cause that the run ends with
    try:
        if uploads:
            uploads.abandon(good)
    except s3.StoreError as error:
        refused = str(error)
    barrier()  # no machine sends any more
    try:
        if PartialState().is_main_process and store:
            left = _set_aside_in_store(store, good, reason)
    except s3.StoreError as error:
        refused = str(error)
    if PartialState().is_main_process and shared:
        for checkpoint in checkpoints_of(run):
            if step_of(checkpoint) > good:
                place = exclude(checkpoint, DIVERGED, reason)
                print(f"training: {checkpoint.name} renamed to {place.name}", flush=True)
            elif is_complete(checkpoint):
                left.append(step_of(checkpoint))
    newest, refused = broadcast_from_main((max(left, default=None), refused))
    if refused:
        return f"delete the checkpoints after step {good} in {store} before resuming (now it says: {refused})"
    return "--resume_from_checkpoint auto " + (
        "starts from scratch, because no checkpoint is known to be good"
        if newest is None
        else f"resumes from checkpoint-{newest}, the newest good one"
    )
