"""Checks of single settings of a run that need neither data nor a model nor a GPU.

`rarft run` makes them before its first step, and training at its start. Values that only the libraries of training can
check are tried out by building an optimizer, a schedule and the trackers without a model.
"""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rarft.errors import InputError

_MAX_SEED = 2**32 - 1
_SCALES = ("group", "batch", "none")
# Settings that this trainer cannot honor, and why.
_NOT_SUPPORTED = {
    "push_to_hub": "checkpoints stay in --out; upload one with `hf upload` when training has ended",
    "use_liger_kernel": "its loss does not read videos; remove the flag",
    "auto_find_batch_size": "a run could not resume; set --per_device_train_batch_size",
    "use_transformers_continuous_batching": "it does not read videos; use --use_vllm",
}


def experiment_name(settings: Mapping[str, Any]) -> str:
    """Return `--exp_name`; otherwise the environment variable EXP_NAME, then `rarft`. It may contain subfolders."""
    flag = "--exp_name" if settings["exp_name"] else "EXP_NAME"
    name = settings["exp_name"] or os.environ.get("EXP_NAME") or "rarft"
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or not parts:
        raise InputError(f"{flag} {name}: must stay inside checkpoints/; use a name such as rarft/first")
    if any(not part.isprintable() or len(os.fsencode(part)) > os.pathconf("/", "PC_NAME_MAX") for part in parts):
        raise InputError(f"{flag} {name!r}: cannot be the name of a folder; use a name such as rarft/first")
    return str(name)


def check_values(settings: Mapping[str, Any]) -> None:
    """Check the values of single settings.

    Raises:
        InputError: The message names the first setting that does not pass.
    """
    experiment_name(settings)
    for name, value in settings.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"--{name} {value}: must be a finite number")
    for name in ("seed", "data_seed"):
        if settings[name] is not None and not 0 <= settings[name] <= _MAX_SEED:
            raise InputError(f"--{name} {settings[name]}: must be between 0 and {_MAX_SEED}")
    for name in ("save", "eval", "logging"):
        steps = settings[f"{name}_steps"]
        is_used = str(getattr(settings[f"{name}_strategy"], "value", settings[f"{name}_strategy"])) == "steps"
        if is_used and steps is not None and not steps > 0:
            raise InputError(
                f"--{name}_steps {steps:g}: must be above 0, and is a fraction of all steps below 1; "
                f"--{name}_strategy no turns it off"
            )
    if (scale := str(settings["scale_rewards"]).lower()) not in (*_SCALES, "true", "false"):
        raise InputError(f"--scale_rewards {scale}: must be one of {', '.join(_SCALES)}")
    for name, reason in _NOT_SUPPORTED.items():
        if settings.get(name):
            raise InputError(f"--{name}: not supported; {reason}")


def _attempt(flags: str, build: Callable[[], Any]) -> None:
    try:
        build()
    except Exception as error:  # libraries raise anything for a value that they do not support
        raise InputError(f"{flags}: {' '.join(str(error).split())}") from error


def check_buildable(args: Any) -> None:
    """Check that optimizer, learning rate schedule and trackers of a configuration can be built.

    Raises:
        InputError: A value is not supported, or a package is not installed.
    """
    import torch
    from transformers import Trainer
    from transformers.integrations import get_reporting_integration_callbacks
    from transformers.optimization import get_scheduler

    parameter = torch.nn.Parameter(torch.zeros(2, 2))

    def build_optimizer() -> None:
        optimizer, options = Trainer.get_optimizer_cls_and_kwargs(args)
        optimizer([parameter], **options)

    def build_schedule() -> None:
        get_scheduler(
            args.lr_scheduler_type,
            optimizer=torch.optim.SGD([parameter], lr=args.learning_rate),
            num_warmup_steps=args.get_warmup_steps(100),
            num_training_steps=100,
            scheduler_specific_kwargs=args.lr_scheduler_kwargs,
        )

    _attempt(f"--optim {getattr(args.optim, 'value', args.optim)}", build_optimizer)
    schedule = getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type)
    _attempt(f"--lr_scheduler_type {schedule}", build_schedule)
    _attempt(f"--report_to {' '.join(args.report_to)}", lambda: get_reporting_integration_callbacks(args.report_to))
