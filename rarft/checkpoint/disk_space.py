"""Disk space that the checkpoints of a run need, estimated before training."""

import contextlib
import math
import os
import shutil
from pathlib import Path
from typing import Any

from rarft.errors import InputError

# Bytes per trained parameter that AdamW adds to a checkpoint: two moments, and under DeepSpeed a float32 master copy
# of the 16-bit weights.
_MOMENTS_BYTES, _MASTER_BYTES = 8, 4
VOLUME_LIMIT_ENV = "RARFT_VOLUME_LIMIT"


def _remaining_saves(args: Any, state: Any) -> int:
    remaining = state.max_steps - state.global_step
    if args.save_strategy == "steps":
        return math.ceil(remaining / state.save_steps)
    if args.save_strategy == "epoch":
        return max(1, math.ceil(state.num_train_epochs * remaining / max(1, state.max_steps)))
    return 0


def required_bytes(model: Any, args: Any, state: Any, max_new: int | None) -> int:
    """Return the size of the checkpoints still to be saved, including the final one.

    At most `max_new` new checkpoints are on the disk at a time; None means all.
    """
    weight_bytes = 2 if args.bf16 and args.deepspeed else 4
    weights = trained = 0
    for parameter in model.parameters():
        count = getattr(parameter, "ds_numel", parameter.numel())
        weights += count * weight_bytes
        trained += count if parameter.requires_grad else 0
    optimizer = trained * (_MOMENTS_BYTES + ((_MASTER_BYTES + weight_bytes) if args.deepspeed else 0))
    saves = _remaining_saves(args, state)
    checkpoints = saves if max_new is None else min(saves, max_new)
    # With LoRA a checkpoint contains only adapters, and the final one the model that they are merged into.
    return weights + checkpoints * ((trained * weight_bytes if args.use_peft else weights) + optimizer)


def free_bytes(folder: Path) -> int:
    """Return the free bytes of a folder's volume.

    Kubernetes evicts a pod whose volume exceeds its size limit. The file system does not show the limit, so the
    manifests state it in `VOLUME_LIMIT_ENV`, as `PATH=BYTES`.
    """
    free = shutil.disk_usage(folder).free
    volume, _, limit = os.environ.get(VOLUME_LIMIT_ENV, "").rpartition("=")
    if not volume or not folder.resolve().is_relative_to(volume):
        return free
    used = 0
    for parent, _, names in os.walk(volume):
        for name in names:
            with contextlib.suppress(FileNotFoundError):  # removed by another process
                used += (Path(parent) / name).lstat().st_blocks * 512
    return min(free, int(limit) - used)


def check_disk_space(folder: Path, required: int) -> None:
    """Raise an `InputError` unless a folder's volume has this many free bytes."""
    free = free_bytes(folder)
    if required > free:
        raise InputError(
            f"{folder}: the checkpoints need about {required / 1e9:.3g} GB, and {free / 1e9:.3g} GB are free; free "
            "disk space, keep fewer with --save_total_limit, or save less often with --save_steps"
        )
