"""Room on the disk for a run's checkpoints, reckoned before training."""

import math
import shutil
from pathlib import Path
from typing import Any

from rarft.errors import InputError

# Bytes a parameter takes in a checkpoint: its weight, and what an optimizer keeps of one that is trained: two
# moments, and under DeepSpeed a float32 master beside the 16-bit parts.
_MOMENTS, _MASTER = 8, 4


def _saves_left(args: Any, state: Any) -> int:
    left = state.max_steps - state.global_step
    if args.save_strategy == "steps":
        return math.ceil(left / state.save_steps)
    if args.save_strategy == "epoch":
        return max(1, math.ceil(state.num_train_epochs * left / max(1, state.max_steps)))
    return 0


def bytes_needed(model: Any, args: Any, state: Any, most: int | None) -> int:
    """Bytes that the checkpoints to come take, and the final one.

    Args:
        model: with all of its parameters, ZeRO-3's partitioned ones too.
        args: the training configuration.
        state: the trainer's, its steps counted.
        most: checkpoints to come that lie there at a time; None: all.
    """
    weight = 2 if args.bf16 and args.deepspeed else 4
    weights = trained = 0
    for parameter in model.parameters():
        number = getattr(parameter, "ds_numel", parameter.numel())
        weights += number * weight
        trained += number if parameter.requires_grad else 0
    moments = trained * (_MOMENTS + ((_MASTER + weight) if args.deepspeed else 0))
    saves = _saves_left(args, state)
    kept = saves if most is None else min(saves, most)
    # Of adapters a checkpoint holds them alone; the final one holds the model that they are merged into.
    return weights + kept * ((trained * weight if args.use_peft else weights) + moments)


def check_space(folder: Path, needed: int) -> None:
    """Make sure that so many bytes fit.

    Raises:
        InputError: they do not.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(
            f"{folder}: {free / 1e9:.3g} GB are free and the checkpoints take about {needed / 1e9:.3g} GB; make "
            "room, keep fewer with --save_total_limit, or save less often with --save_steps"
        )
