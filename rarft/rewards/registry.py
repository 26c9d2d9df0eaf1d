"""The rewards by the names that `--reward_funcs` takes."""

from collections.abc import Callable
from typing import Any

from rarft.errors import InputError
from rarft.rewards.explain_correction import ExplainCorrection, Similarity
from rarft.rewards.format import format_reward
from rarft.rewards.refuse_iou import refuse_iou_reward

RewardFunction = Callable[..., list[float]]

_REWARDS: dict[str, Callable[[Similarity], RewardFunction]] = {
    "format": lambda _: format_reward,
    "refuse_iou": lambda _: refuse_iou_reward,
    "explain_correction": ExplainCorrection,
}


def resolve_rewards(names: list[str], similarity: Similarity) -> list[RewardFunction]:
    """The reward functions of these names, in this order.

    Args:
        names: as `--reward_funcs` gives them.
        similarity: what the correction reward compares texts with.

    Raises:
        InputError: a name that no reward has.
    """
    if unknown := [name for name in names if name not in _REWARDS]:
        raise InputError(f"--reward_funcs {unknown[0]}: no such reward; use some of {', '.join(_REWARDS)}")
    return [_REWARDS[name](similarity) for name in names]


def score_terms(
    names: list[str], similarity: Similarity, completions: list[Any], **columns: Any
) -> dict[str, list[float]]:
    """Each reward of finished completions, by name."""
    functions = resolve_rewards(names, similarity)
    return {
        name: function(completions=completions, **columns) for name, function in zip(names, functions, strict=True)
    }
