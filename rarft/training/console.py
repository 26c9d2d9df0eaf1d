"""The block that training prints now and then: one query, its completions, and what each was given and why."""

import math
from collections.abc import Mapping, Sequence

_WIDTH = 80
_SHOWN = 160  # characters of a completion


def _numbers(values: Sequence[float | None]) -> str:
    return "[" + ", ".join("-" if value is None or math.isnan(value) else f"{value:.2f}" for value in values) + "]"


def completions_block(
    query: str,
    task_type: str,
    completions: Sequence[str],
    rewards: Mapping[str, Sequence[float | None]],
    parts: Mapping[str, Sequence[float | None]],
) -> str:
    """The guide's console block for one group of G completions.

    Args:
        query: what was asked.
        task_type: answerable or refusable.
        completions: G texts.
        rewards: of each reward its G values.
        parts: of each part of a reward its G values; None where it does not apply.
    """
    lines = [f"Query: {query}", f"Task Type: {task_type}", f"Generated Completions ({len(completions)}):"]
    for number, completion in enumerate(completions, 1):
        text = " ".join(completion.split())
        lines.append(f"  [{number}] {text if len(text) <= _SHOWN else text[:_SHOWN] + '...'}")
    lines.append("=" * _WIDTH)
    lines += [f"reward_{name.removesuffix('_reward')}: {_numbers(values)}" for name, values in rewards.items()]
    lines += [
        f"  {name}: {_numbers(values)}" for name, values in parts.items() if any(value is not None for value in values)
    ]
    return "\n".join(lines)
