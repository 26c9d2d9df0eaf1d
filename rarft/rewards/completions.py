"""What every reward needs: the text of a completion, and where its parts are logged."""

from collections.abc import Callable, Sequence
from typing import Any

LogMetric = Callable[[str, float], None]
LogExtra = Callable[[str, list[Any]], None]


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """Plain text as it is; of a conversation, the content of its last turn."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def log_term(
    name: str, values: Sequence[float | None], log_metric: LogMetric | None, log_extra: LogExtra | None
) -> None:
    """Log a part of a reward: its mean as a metric, and its values as a column of the completions' table.

    Args:
        name: `reward/part`.
        values: one for each completion; None where the part does not apply.
        log_metric: TRL's, or nothing outside of training.
        log_extra: TRL's, or nothing outside of training.
    """
    known = [value for value in values if value is not None]
    if log_metric is not None and known:
        log_metric(name, sum(known) / len(known))
    if log_extra is not None:
        log_extra(name, list(values))
