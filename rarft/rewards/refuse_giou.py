"""Refuse-GIoU reward: as refuse-IoU, with partial credit for an answer that misses the segment."""

from typing import Any

from rarft.completion import parse_completion
from rarft.rewards.columns import all_solutions, completion_text
from rarft.segments import Segment, counted_segments, generalized_iou


def refuse_giou_reward(
    completions: list[Any],
    task_type: list[str],
    solution: list[Segment | None],
    solutions: list[list[Segment]] | None = None,
    **_: Any,
) -> list[float]:
    """Score each completion, in [0, 1].

    Refusable query: 1 for a refusal, 0 otherwise. Answerable query: (1 + `generalized_iou`) / 2 for a segment, 0
    without one.

    Args:
        completions: Completions, plain or conversational.
        task_type: "answerable" or "refusable".
        solution: True segments, in seconds; None for refusable queries.
        solutions: All true segments of each query; default: its `solution` alone.

    Example:
        >>> text = "<think>a</think><answer>50 to 60</answer><correction>NIL</correction>"
        >>> refuse_giou_reward([text], ["answerable"], [(20.0, 40.0)])  # (1 - 10 / 40) / 2
        [0.375]
    """
    scores = []
    for text, kind, true in zip(completions, task_type, all_solutions(solution, solutions), strict=True):
        completion = parse_completion(completion_text(text))
        if kind != "answerable":
            scores.append(float(completion.refuses))
        else:
            scores.append((1 + generalized_iou(counted_segments(completion.segments, true), true)) / 2)
    return scores
