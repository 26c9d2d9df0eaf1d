"""Rewards by the names that `--reward_funcs` takes: the built-in ones and the user's own."""

import asyncio
import functools
import inspect
import math
import traceback
from collections.abc import Awaitable
from typing import Any

from rarft.errors import InputError
from rarft.plugins import load_function
from rarft.rewards.columns import BUILT_IN_REWARDS, RewardFunction
from rarft.rewards.contrastive import ExplainCorrectionContrastive
from rarft.rewards.explain_correction import ExplainCorrection, Similarity
from rarft.rewards.format import format_reward
from rarft.rewards.refuse_giou import refuse_giou_reward
from rarft.rewards.refuse_iou import refuse_iou_reward


def _load_reward(name: str) -> RewardFunction:
    """Return a user's reward, or raise an InputError if it does not exist or cannot be imported."""
    return _check_values(load_function(name, "reward", BUILT_IN_REWARDS), name)


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
