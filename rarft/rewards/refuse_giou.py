"""Refuse-GIoU reward: as refuse-IoU, with partial credit for an answer that misses the segment."""

from typing import Any

from rarft.completion import parse_completion
from rarft.rewards.columns import completion_text
from rarft.segments import Segment, generalized_iou


def refuse_giou_reward(
    completions: list[Any], task_type: list[str], solution: list[Segment | None], **_: Any
) -> list[float]:
    """Score each completion, in [0, 1].

    Refusable query: 1 for a refusal, 0 otherwise. Answerable query: (1 + `generalized_iou`) / 2 for a segment, 0
    without one.

    Args:
        completions: Completions, plain or conversational.
        task_type: "answerable" or "refusable".
        solution: True segments, in seconds; None for refusable queries.

    Example:
        >>> text = "<think>a</think><answer>50 to 60</answer><correction>NIL</correction>"
        >>> refuse_giou_reward([text], ["answerable"], [(20.0, 40.0)])  # (1 - 10 / 40) / 2
        [0.375]
    """
    scores = []
    for text, kind, truth in zip(completions, task_type, solution, strict=True):
        completion = parse_completion(completion_text(text))
        if kind != "answerable":
            scores.append(float(completion.refuses))
        elif completion.segment is None or truth is None:
            scores.append(0.0)
        else:
            scores.append((1 + generalized_iou(completion.segment, truth)) / 2)
    return scores
