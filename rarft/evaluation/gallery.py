"""Examples in the evaluation report: predictions by kind of failure, the worst first, with video frames."""

import base64
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Any

from rarft.completion import format_segment, format_segments
from rarft.evaluation.predictions import Prediction
from rarft.evaluation.scored_predictions import ScoredPrediction
from rarft.segments import Segment, is_valid
from rarft.video.reader import VideoError
from rarft.video.thumbnails import thumbnails

MAX_EXAMPLES = 25  # per kind
_LOW_SIMILARITY = 0.5  # of a correction
_LOW_IOU = 0.5
_DEFAULT_DURATION_S = 600.0  # last second shown of a video of unknown duration
_FRAME_POSITIONS = (0.0, 0.5, 1.0)  # in a segment
KINDS = {
    "answered": "Answered, but the query does not fit the video",
    "refused": "Refused, but the query fits the video",
    "misplaced": f"Correctly answered, IoU below {_LOW_IOU:g}",
    "unanswered": "No answer",
    "unreadable": "Times in a form that cannot be read",
    "skipped": "Skipped, because the video cannot be read",
    "uncorrected": "Correctly refused, correction missing or wrong",
    "right": "Correct",
}


def classify_failure(row: ScoredPrediction) -> tuple[str, float]:
    """Return the kind of failure, a key of KINDS, and its severity: 1 is the worst."""
    if row.prediction.skipped is not None:
        return "skipped", 1.0
    if not row.completion.answer:
        return "unanswered", 1.0
    if row.completion.outcome == "unreadable":
        return "unreadable", 1.0
    if row.relevant:
        if not row.predicted_relevant:
            return "refused", 1.0
        iou = row.iou or 0.0
        return ("misplaced" if iou < _LOW_IOU else "right"), 1.0 - iou
    if row.predicted_relevant:
        return "answered", 1.0
    similarity = row.prediction.correction_similarity
    if row.prediction.sample.reference_queries and (similarity is None or similarity < _LOW_SIMILARITY):
        return "uncorrected", 1.0 - (similarity or 0.0)
    return "right", 0.0


def select_examples(
    scored: Sequence[ScoredPrediction], others: Mapping[str, Sequence[ScoredPrediction]]
) -> tuple[list[dict[str, Any]], list[tuple[str, str, int]]]:
    """Select the worst predictions of every kind; `others` are those of the other candidates, by name.

    Returns:
        The examples as the template evaluation.html.j2 takes them, and (kind, title, number of predictions) of each
        kind that occurs.
    """
    by_kind: dict[str, list[tuple[float, int]]] = {kind: [] for kind in KINDS}
    for index, row in enumerate(scored):
        kind, severity = classify_failure(row)
        by_kind[kind].append((-severity, index))
    examples = [
        _describe(kind, scored[index], {name: _text(rows[index].prediction) for name, rows in others.items()})
        for kind, ranked in by_kind.items()
        for _, index in sorted(ranked)[:MAX_EXAMPLES]
    ]
    return examples, [(kind, KINDS[kind], len(ranked)) for kind, ranked in by_kind.items() if ranked]


def _text(prediction: Prediction) -> str:
    return prediction.completion if prediction.skipped is None else f"skipped: {prediction.skipped}"


def _describe(kind: str, row: ScoredPrediction, others: Mapping[str, str]) -> dict[str, Any]:
    sample = row.prediction.sample
    segments = {f"true, {format_segment(segment)}": segment for segment in sample.segments}
    segments |= {f"predicted, {format_segment(segment)}": segment for segment in row.segments if is_valid(segment)}
    rewards = ", ".join(f"{name} {value:.2f}" for name, value in row.prediction.rewards.items())
    scores = [f"IoU {row.iou:.2f}" if row.iou is not None else "", rewards, ", ".join(sample.categories)]
    error, strips = None, {}
    try:
        strips = _frames(sample.video, sample.duration, segments)
    except VideoError as failure:
        error = str(failure)
    return {
        "kind": kind,
        "query": sample.query,
        "video": sample.video.rsplit("/", 1)[-1],
        "difficulty": sample.difficulty or sample.task_type,
        "error": error,
        "strips": strips,
        "truth": format_segments(sample.segments) if sample.segments else f"does not fit: {sample.gt_answer}",
        "completion": _text(row.prediction),
        "others": others,
        "scores": "; ".join(score for score in scores if score),
    }


def _frames(video: str, duration: float | None, segments: dict[str, Segment]) -> dict[str, list[tuple[str, str]]]:
    """Return the first, middle and last frame of each segment, or of the video, as (seconds, base64 of a JPEG)."""
    segments = segments or {"the video": (0.0, duration or 0.0)}
    last = duration or _DEFAULT_DURATION_S
    times = [min(last, start + (end - start) * part) for start, end in segments.values() for part in _FRAME_POSITIONS]
    images = [base64.b64encode(frame).decode() for frame in thumbnails(video, times)]
    frames = zip((f"{time:.2f}" for time in times), images, strict=True)
    return {name: list(islice(frames, len(_FRAME_POSITIONS))) for name in segments}
