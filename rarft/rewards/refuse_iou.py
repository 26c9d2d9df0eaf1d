"""Refuse-IoU reward: the right segment where there is one, no segment where there is none."""

from typing import Any

from rarft.completion import Completion, parse_completion
from rarft.rewards.completions import LogExtra, LogMetric, completion_text, log_term
from rarft.segments import Segment, is_valid, temporal_iou


def grounding_terms(
    prediction: Segment | None, solution: Segment | None, duration: float
) -> tuple[float, float, float]:
    """IoU, accuracy of the start and accuracy of the end, each in [0, 1]; zeros where one cannot be measured.

    That is: no prediction, or a prediction or a truth that does not end after its start, or no positive duration.

    The accuracies are max(0, 1 - |s - s'| / d) and max(0, 1 - |e - e'| / d) for prediction [s', e'] and truth
    [s, e] in a video of d seconds (guide, reward 2; clamped by D3).
    """
    if prediction is None or solution is None or not (is_valid(prediction) and is_valid(solution) and duration > 0):
        return 0.0, 0.0, 0.0
    start = max(0.0, 1.0 - abs(solution[0] - prediction[0]) / duration)
    end = max(0.0, 1.0 - abs(solution[1] - prediction[1]) / duration)
    return temporal_iou(prediction, solution), start, end


def refuse_iou(response: Completion, task_type: str, solution: Segment | None, duration: float) -> float:
    """Score of one completion, in [0, 1] (guide, reward 2; D2, D3).

    Refusable: 1 for a refusal, else 0. Answerable: the product of `grounding_terms`; without a timestamp 0.
    """
    if task_type == "refusable":
        return float(response.refuses)
    iou, start, end = grounding_terms(response.segment, solution, duration)
    return iou * start * end


def refuse_iou_reward(
    completions: list[Any],
    task_type: list[str],
    solution: list[Segment | None],
    durations: list[float],
    log_metric: LogMetric | None = None,
    log_extra: LogExtra | None = None,
    **_: Any,
) -> list[float]:
    """`refuse_iou` of each completion; columns as in the data set, times in seconds."""
    rows = list(zip(completions, task_type, solution, durations, strict=True))
    responses = [parse_completion(completion_text(completion)) for completion in completions]
    terms = [
        grounding_terms(response.segment, truth, duration) if kind == "answerable" else (None, None, None)
        for response, (_, kind, truth, duration) in zip(responses, rows, strict=True)
    ]
    for index, name in enumerate(("iou", "start_accuracy", "end_accuracy")):
        log_term(f"refuse_iou/{name}", [term[index] for term in terms], log_metric, log_extra)
    return [
        refuse_iou(response, kind, truth, duration)
        for response, (_, kind, truth, duration) in zip(responses, rows, strict=True)
    ]
