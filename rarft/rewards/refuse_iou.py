"""Refuse-IoU reward: the right segment for an answerable query, a refusal for a refusable one."""

import math
from collections.abc import Sequence
from typing import Any

from rarft.completion import parse_completion
from rarft.rewards.columns import LogExtra, LogMetric, all_solutions, completion_text, log_term
from rarft.segments import Segment, counted_segments, is_valid, outer_bounds, union_iou

_TERMS = ("refuse_iou/iou", "refuse_iou/start_accuracy", "refuse_iou/end_accuracy")


def grounding_terms(stated: Sequence[Segment], true: Sequence[Segment], duration: float) -> tuple[float, float, float]:
    """Return IoU, start accuracy and end accuracy, each in [0, 1]; zeros without valid segments.

    For prediction [s', e'] and solution [s, e] in a video of d seconds the accuracies are max(0, 1 - |s - s'| / d)
    and max(0, 1 - |e - e'| / d) (training guide, reward 2; clamped by D3). The prediction is the first stated segment.
    If several are true, the IoU is that of the unions, and the accuracies are those of the outer bounds (D30).
    """
    predicted = counted_segments(stated, true)
    if not (predicted and true and all(map(is_valid, true)) and duration > 0):
        return 0.0, 0.0, 0.0
    prediction, solution = outer_bounds(predicted), outer_bounds(true)
    start = max(0.0, 1.0 - abs(solution[0] - prediction[0]) / duration)
    end = max(0.0, 1.0 - abs(solution[1] - prediction[1]) / duration)
    return union_iou(predicted, true), start, end


def refuse_iou_reward(
    completions: list[Any],
    task_type: list[str],
    solution: list[Segment | None],
    durations: list[float | None],
    solutions: list[list[Segment]] | None = None,
    log_metric: LogMetric | None = None,
    log_extra: LogExtra | None = None,
    **_: Any,
) -> list[float | None]:
    """Score each completion, in [0, 1] (training guide, reward 2; D2, D3).

    Refusable query: 1 for a refusal, 0 otherwise. Answerable query: the product of `grounding_terms`.

    Args:
        completions: Completions, plain or conversational.
        task_type: "answerable" or "refusable".
        solution: True segments, in seconds; None for refusable queries.
        solutions: All true segments of each query; default: its `solution` alone.
        durations: Durations of the videos, in seconds. If one is None, so is the score.
        log_metric, log_extra: TRL's functions to log the mean and the values of a term.

    Example:
        >>> text = "<think>a</think><answer>22 to 38</answer><correction>NIL</correction>"
        >>> refuse_iou_reward([text], ["answerable"], [(20.0, 40.0)], [100.0])  # 0.8 * 0.98 * 0.98
        [0.76832]
    """
    scores: list[float | None] = []
    terms: list[tuple[float, float, float] | tuple[None, None, None]] = []
    unreadable = []
    for text, kind, true, duration in zip(
        completions, task_type, all_solutions(solution, solutions), durations, strict=True
    ):
        completion = parse_completion(completion_text(text))
        unreadable.append(float(completion.outcome == "unreadable"))
        if duration is not None and kind == "answerable":
            terms.append(values := grounding_terms(completion.segments, true, duration))
            scores.append(math.prod(values))
        else:
            terms.append((None, None, None))
            scores.append(None if duration is None else float(completion.refuses))
    log_term("refuse_iou/unreadable", unreadable, log_metric, log_extra)
    for index, name in enumerate(_TERMS):
        log_term(name, [values[index] for values in terms], log_metric, log_extra)
    return scores
