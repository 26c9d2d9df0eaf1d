"""The list of rewards, the columns that they read, and the logging of their terms."""

from collections.abc import Callable, Sequence
from typing import Any

from rarft.annotations.schema import Sample
from rarft.segments import Segment

RewardFunction = Callable[..., list[Any]]
LogMetric = Callable[[str, float], None]
LogExtra = Callable[[str, list[Any]], None]

DEFAULT_REWARDS = ("format", "refuse_iou", "explain_correction")
BUILT_IN_REWARDS = (*DEFAULT_REWARDS, "explain_correction_contrastive", "refuse_giou")


def reward_columns(sample: Sample) -> dict[str, Any]:
    """Return what rewards read of a sample, by column name."""
    return {
        "task_type": sample.task_type,
        "solution": sample.segment,
        "solutions": sample.segments,
        "durations": sample.duration,
        "query": sample.query,
        "reference_queries": sample.reference_queries,
        "gt_answers": sample.gt_answer,
        "contrast_answers": sample.contrast_answer,
    }


def apply_reward(
    reward: RewardFunction,
    samples: Sequence[Sample],
    completions: Sequence[str],
    log_metric: LogMetric = lambda name, value: None,
    log_extra: LogExtra = lambda name, values: None,
) -> list[float | None]:
    """Call a reward outside of training, for at least one sample, with the arguments that TRL passes.

    `log_metric` receives the mean of each term that the reward logs, `log_extra` the values.
    """
    rows = [reward_columns(sample) for sample in samples]
    return reward(
        prompts=[sample.query for sample in samples],
        completions=list(completions),
        completion_ids=[[] for _ in samples],
        log_metric=log_metric,
        log_extra=log_extra,
        trainer_state=None,
        **{name: [row[name] for row in rows] for name in rows[0]},
    )


def log_term(
    name: str, values: Sequence[float | None], log_metric: LogMetric | None, log_extra: LogExtra | None
) -> None:
    """Log a term of a reward: its mean as a metric, its values as a column of the table of completions.

    A value is None where the term does not apply. TRL's functions `log_metric` and `log_extra` are optional.
    """
    known = [value for value in values if value is not None]
    if log_metric is not None and known:
        log_metric(name, sum(known) / len(known))
    if log_extra is not None:
        log_extra(name, list(values))


def all_solutions(
    solution: Sequence[Segment | None], solutions: Sequence[Sequence[Segment]] | None
) -> Sequence[Sequence[Segment]]:
    """Return the true segments of each query, from the column `solutions` or else from `solution`."""
    return solutions if solutions is not None else [[] if one is None else [one] for one in solution]


def completion_text(completion: str | list[dict[str, Any]]) -> str:
    """Return a plain completion as it is, and of a conversation the content of its last turn."""
    return completion if isinstance(completion, str) else str(completion[-1]["content"])
