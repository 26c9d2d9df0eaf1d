"""Format reward: does the completion have its three blocks?"""

from typing import Any

from rarft.completion import parse_completion
from rarft.rewards.completions import completion_text


def format_reward(completions: list[Any], **_: Any) -> list[float]:
    """1.0 for think, answer and correction in order, each tag exactly once, else 0.0 (guide, reward 1; D1)."""
    return [float(parse_completion(completion_text(completion)).well_formed) for completion in completions]
