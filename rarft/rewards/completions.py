"""What every reward needs: the text of a completion, and where its parts are logged."""

from collections.abc import Callable
from typing import Any

LogMetric = Callable[[str, float], None]


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """Plain text as it is; of a conversation, the content of its last turn."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])


def log_mean(log_metric: LogMetric | None, name: str, values: list[float]) -> None:
    """Log the mean of a reward's part, where there is a trainer that logs and anything to log."""
    if log_metric is not None and values:
        log_metric(name, sum(values) / len(values))
