"""Outcomes of predictions: correct, or a kind of failure."""

from rarft.evaluation.scored_predictions import ScoredPrediction

_LOW_SIMILARITY = 0.5  # of a correction
_LOW_IOU = 0.5
OUTCOMES = {
    "answered": "Answered, but the query does not fit the video",
    "refused": "Refused, but the query fits the video",
    "misplaced": f"Correctly answered, IoU below {_LOW_IOU:g}",
    "unanswered": "No answer",
    "unreadable": "Times in a form that cannot be read",
    "skipped": "Skipped, because the video cannot be read",
    "uncorrected": "Correctly refused, correction missing or wrong",
    "right": "Correct",
}

# One sentence for each outcome. The IoU is that of the segments that count.
DEFINITIONS = {
    "answered": "The answer has a segment, although the moment does not occur.",
    "refused": "The answer is a refusal, although the moment occurs.",
    "misplaced": f"The segment has an IoU with the true one below {_LOW_IOU:g}.",
    "unanswered": "The completion has no answer, or an empty one.",
    "unreadable": "The answer has times, but not in the form 4.00 to 6.50; counted as wrong.",
    "skipped": "Nothing was generated; counted as wrong.",
    "uncorrected": (
        "The refusal is right, but it has no correction, or the correction's cosine similarity to every query "
        f"that fits the video is below {_LOW_SIMILARITY:g}."
    ),
    "right": (
        f"The query fits, and the segment has an IoU with the true one of at least {_LOW_IOU:g}; or the query does "
        f"not fit, it is refused, and the correction has a cosine similarity of at least {_LOW_SIMILARITY:g} to a "
        "query that fits (not checked if the data has no such query)."
    ),
}


def classify_outcome(row: ScoredPrediction) -> tuple[str, float]:
    """Return the outcome, a key of OUTCOMES, and its severity: 1 is the worst."""
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
