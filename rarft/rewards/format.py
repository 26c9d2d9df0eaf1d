"""Format reward: whether a completion consists of its three blocks."""

from typing import Any

from rarft.completion import parse_completion
from rarft.rewards.columns import completion_text


def format_reward(completions: list[Any], **_: Any) -> list[float]:
    """Return 1.0 for think, answer and correction in order, each tag once; 0.0 otherwise (guide, reward 1; D1).

    Example:
        >>> format_reward(["<think>a</think><answer>1 to 2</answer><correction>NIL</correction>", "1 to 2"])
        [1.0, 0.0]
    """
    return [float(parse_completion(completion_text(completion)).well_formed) for completion in completions]
