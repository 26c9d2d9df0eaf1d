"""A refusable query that was made, before it becomes a row of the data."""

from dataclasses import dataclass, field
from typing import Any

from rarft.annotations.schema import Difficulty
from rarft.answers import parse_answer

KINDS = ("shuffled", "rules", "model")


@dataclass(frozen=True, slots=True)
class Negative:
    """A refusable query.

    Attributes:
        kind: `shuffled`, `rules` or `model`.
        query: Text of the query.
        source: Answerable query of the same item that it is derived from, or compared with.
        difficulty: Difficulty of the refusal.
        categories: Mismatch categories, where they are known.
        reason: Ground-truth answer: a refusal that names the mismatch.
        detail: Origin of the query by kind, such as the swapped words; stored in `extra`.
    """

    kind: str
    query: str
    source: str
    difficulty: Difficulty
    categories: list[str]
    reason: str
    detail: dict[str, Any] = field(default_factory=dict)


def reads_as_refusal(reason: str) -> bool:
    """Check that rewards and evaluation take a reason for a refusal. One that quotes times or answer tags is not."""
    return parse_answer(reason)[0] == "refusal" and "<answer>" not in reason and "</answer>" not in reason
