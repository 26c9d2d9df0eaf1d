"""The block that training logs now and then: a query, its completions, and the parts of their rewards."""

import math
from collections.abc import Mapping, Sequence

_WIDTH = 80
_MAX_CHARACTERS = 160  # of a completion


def _format_values(values: Sequence[float | None]) -> str:
    return "[" + ", ".join("-" if value is None or math.isnan(value) else f"{value:.2f}" for value in values) + "]"


def completions_block(
    query: str,
    task_type: str,
    completions: Sequence[str],
    rewards: Mapping[str, Sequence[float | None]],
    parts: Mapping[str, Sequence[float | None]],
) -> str:
    """Return the training guide's console block for one group of G completions.

    Args:
        query: Query of the group.
        task_type: `answerable` or `refusable`.
        completions: G texts.
        rewards: G values per reward.
        parts: G values per part of a reward; None where a part does not apply.
    """
    lines = [f"Query: {query}", f"Task Type: {task_type}", f"Generated Completions ({len(completions)}):"]
    for number, completion in enumerate(completions, 1):
        text = " ".join(completion.split())
        lines.append(f"  [{number}] {text if len(text) <= _MAX_CHARACTERS else text[:_MAX_CHARACTERS] + '...'}")
    lines.append("=" * _WIDTH)
    lines += [f"reward_{name.removesuffix('_reward')}: {_format_values(values)}" for name, values in rewards.items()]
    lines += [
        f"  {name}: {_format_values(values)}"
        for name, values in parts.items()
        if any(value is not None for value in values)
    ]
    return "\n".join(lines)
