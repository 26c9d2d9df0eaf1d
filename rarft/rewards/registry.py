"""The rewards by the names that `--reward_funcs` takes: ours, and the user's own."""

import functools
import importlib
import importlib.util
import math
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rarft.errors import InputError
from rarft.rewards.contrastive import ExplainCorrectionContrastive
from rarft.rewards.explain_correction import ExplainCorrection, Similarity
from rarft.rewards.format import format_reward
from rarft.rewards.refuse_iou import refuse_iou_reward

RewardFunction = Callable[..., list[Any]]

BUILT_IN = ("format", "refuse_iou", "explain_correction", "explain_correction_contrastive")
_HOW_TO_NAME = (
    f"use some of {', '.join(BUILT_IN)}, or name your own as path/to/file.py:function or package.module:function"
)


def _load_module(source: str, name: str) -> Any:
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = Path(source)
    if not path.is_file():
        raise InputError(f"--reward_funcs {name}: no file {path}; check the path")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"--reward_funcs {name}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _load(name: str) -> RewardFunction:
    """A user's reward.

    Raises:
        InputError: the file, the module or the function is not there, or cannot be imported.
    """
    source, colon, function_name = name.rpartition(":")
    if not colon:
        raise InputError(f"--reward_funcs {name}: no such reward; {_HOW_TO_NAME}")
    try:
        module = _load_module(source, name)
    except InputError:
        raise
    except Exception as error:  # whatever a user's file does while it is imported
        raise InputError(f"--reward_funcs {name}: cannot be imported ({type(error).__name__}: {error})") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        public = sorted(key for key in own if callable(getattr(module, key)) and not key.startswith("_"))
        raise InputError(
            f"--reward_funcs {name}: {source} has no function {function_name}; it has {', '.join(public)}"
        )
    return _checked(function, name)


def _checked(function: RewardFunction, name: str) -> RewardFunction:
    """The reward, with what it returns looked at: one finite number, or None for "does not apply", a completion.

    Raises:
        InputError: when called, if it fails or returns anything else; the message names the reward.
    """

    @functools.wraps(function)
    def checked(completions: list[Any], **columns: Any) -> list[float | None]:
        try:
            rewards = list(function(completions=completions, **columns))
            numbers = [None if value is None else float(value) for value in rewards]
        except Exception as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise InputError(
                f"reward {name}: failed with {type(error).__name__}: {error} (at {last.filename}:{last.lineno}); "
                "it is called as reward(completions=.., **columns) and returns a list, one number a completion"
            ) from error
        if len(numbers) != len(completions):
            raise InputError(
                f"reward {name}: returned {len(numbers)} values for {len(completions)} completions; return one each"
            )
        for index, number in enumerate(numbers):
            if number is not None and not math.isfinite(number):
                raise InputError(
                    f"reward {name}: returned {number} for completion {index}; return a finite number, "
                    "or None where the reward does not apply"
                )
        return numbers

    return checked


def resolve_rewards(names: list[str], similarity: Similarity, baseline: str = "none") -> list[RewardFunction]:
    """The reward functions of these names, in this order.

    Args:
        names: as `--reward_funcs` gives them.
        similarity: what the correction rewards compare texts with.
        baseline: `--correction_baseline`.

    Raises:
        InputError: a name that leads to no reward.
    """
    built_in: dict[str, RewardFunction] = {
        "format": format_reward,
        "refuse_iou": refuse_iou_reward,
        "explain_correction": ExplainCorrection(similarity, baseline),
        "explain_correction_contrastive": ExplainCorrectionContrastive(similarity),
    }
    return [built_in[name] if name in built_in else _load(name) for name in names]
