"""Rewards by the names that `--reward_funcs` takes: the built-in ones and the user's own."""

import asyncio
import functools
import importlib
import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Awaitable
from typing import Any

from rarft.errors import InputError
from rarft.rewards.columns import BUILT_IN_REWARDS, RewardFunction
from rarft.rewards.contrastive import ExplainCorrectionContrastive
from rarft.rewards.explain_correction import ExplainCorrection, Similarity
from rarft.rewards.format import format_reward
from rarft.rewards.refuse_giou import refuse_giou_reward
from rarft.rewards.refuse_iou import refuse_iou_reward
from rarft.storage.files import local_path
from rarft.storage.hashing import hash_text


def _load_module(source: str) -> Any:
    if not source.endswith(".py"):
        return importlib.import_module(source)
    path = local_path(source).resolve()
    # Registered, as dataclasses look their module up; under a name that no installed module has.
    name = f"rarft_reward_file_{path.stem}_{hash_text(str(path))[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None  # its name ends in .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))  # for its imports of files next to it, which may be late
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _load_reward(name: str) -> RewardFunction:
    """Return a user's reward, or raise an InputError if it does not exist or cannot be imported."""
    source, colon, function_name = name.rpartition(":")
    if not colon:
        custom = "your own as path/to/file.py:function or package.module:function"
        raise InputError(f"{name}: no such reward; use {', '.join(BUILT_IN_REWARDS)}, or {custom}")
    if source.endswith(".py") and not local_path(source).is_file():
        raise InputError(f"{name}: no such file {source}; check the path")
    try:
        module = _load_module(source)
    except (Exception, SystemExit) as error:  # importing the user's code may raise anything
        raise InputError(f"{name}: cannot be imported ({type(error).__name__}: {error}); fix {source}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        public = sorted(key for key in own if callable(getattr(module, key)) and not key.startswith("_"))
        raise InputError(f"{name}: no function {function_name} in {source}; use one of {', '.join(public)}")
    return _check_values(function, name)


def _check_values(function: RewardFunction, name: str) -> RewardFunction:
    """Wrap a reward to raise an InputError, with its name, unless it returns a finite number or None for each."""

    @functools.wraps(function)
    def checked(completions: list[Any], **columns: Any) -> list[float | None]:
        try:
            rewards: Any = function(completions=completions, **columns)
            if inspect.isawaitable(rewards):
                rewards = asyncio.run(_wait_for(rewards))
            if hasattr(rewards, "tolist"):  # an array or a tensor, on any device
                rewards = rewards.tolist()
            numbers = [None if value is None else float(value) for value in rewards]
        except Exception as error:
            frame = traceback.extract_tb(error.__traceback__)[-1]
            raise InputError(
                f"reward {name}: failed with {type(error).__name__}: {error} (at {frame.filename}:{frame.lineno}); "
                "it is called as reward(completions=.., **columns) and must return one number per completion"
            ) from error
        if len(numbers) != len(completions):
            raise InputError(
                f"reward {name}: returned {len(numbers)} values for {len(completions)} completions; return one each"
            )
        for index, number in enumerate(numbers):
            if number is not None and not math.isfinite(number):
                fix = "return a finite number, or None where the reward does not apply"
                raise InputError(f"reward {name}: returned {number} for completion {index}; {fix}")
        return numbers

    checked.__name__ = getattr(function, "__name__", name.rpartition(":")[2])  # an object has none
    return checked


async def _wait_for(awaitable: Awaitable[Any]) -> Any:
    return await awaitable


def resolve_rewards(names: list[str], similarity: Similarity, baseline: str = "none") -> list[RewardFunction]:
    """Return the reward functions of these names, in the same order; raise an InputError if there is no such one.

    Args:
        names: Built-in rewards, `path/to/file.py:function` or `package.module:function`.
        similarity: Encoder of the correction rewards.
        baseline: Baseline of the correction bonus, "none" or "query".
    """
    functions = (
        format_reward,
        refuse_iou_reward,
        ExplainCorrection(similarity, baseline),
        ExplainCorrectionContrastive(similarity),
        refuse_giou_reward,
    )
    built_in: dict[str, RewardFunction] = dict(zip(BUILT_IN_REWARDS, functions, strict=True))
    return [built_in[name] if name in built_in else _load_reward(name) for name in names]
