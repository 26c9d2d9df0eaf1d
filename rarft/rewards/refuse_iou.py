"""Refuse-IoU reward: the right segment where there is one, no segment where there is none."""

from typing import Any

from rarft.response import Response, parse
from rarft.rewards.completions import completion_text
from rarft.segments import Segment, is_valid, temporal_iou


def refuse_iou(response: Response, task_type: str, solution: Segment | None, duration: float) -> float:
    """Score of one completion, in [0, 1] (guide, reward 2; D2, D3).

    Refusable: 1 for a refusal, else 0. Answerable, with prediction [s', e'] and truth [s, e] in a video of d
    seconds: IoU * max(0, 1 - |s - s'| / d) * max(0, 1 - |e - e'| / d); without a timestamp 0.
    """
    if task_type == "refusable":
        return float(response.refuses)
    prediction = response.segment
    if prediction is None or solution is None or not is_valid(prediction):
        return 0.0
    start_accuracy = max(0.0, 1.0 - abs(solution[0] - prediction[0]) / duration)
    end_accuracy = max(0.0, 1.0 - abs(solution[1] - prediction[1]) / duration)
    return temporal_iou(prediction, solution) * start_accuracy * end_accuracy


def refuse_iou_reward(
    completions: list[Any],
    task_type: list[str],
    solution: list[Segment | None],
    durations: list[float],
    **_: Any,
) -> list[float]:
    """`refuse_iou` of each completion; columns as in the data set, times in seconds."""
    rows = zip(completions, task_type, solution, durations, strict=True)
    return [refuse_iou(parse(completion_text(text)), kind, truth, duration) for text, kind, truth, duration in rows]
