"""Scored predictions as columns of numbers; every metric is a ratio of sums of these columns.

So the same formula serves all samples, any group of them, and every resample of a bootstrap.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rarft.annotations.schema import CATEGORIES
from rarft.completion import parse_completion
from rarft.evaluation.predictions import Prediction
from rarft.segments import union_iou

Column = NDArray[np.float64]
_ROUNDING_S = 0.005  # completions give times in hundredths of a second
THRESHOLDS = {"r_at_30": 0.3, "r_at_50": 0.5, "r_at_70": 0.7}


class ScoredPrediction:
    """A prediction compared with the ground truth.

    Attributes:
        prediction: The prediction.
        completion: The parsed completion.
        relevant: Whether the query is answerable.
        predicted_relevant: Relevance that the completion claims; the opposite of the truth if it has no answer, or an
            unreadable one.
        segments: Segments of the answer that count: the first, or all of them if several are true.
        iou: Temporal IoU with the true segment, or of the unions if there are several; None for a refusable query.
        ra_iou: RA-IoU: 0 if relevance is wrong, 1 for a correct refusal, otherwise the temporal IoU.
    """

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction
        self.completion = parse_completion(prediction.completion)
        sample, stated = prediction.sample, self.completion.segments
        self.segments = stated if len(sample.segments) > 1 else stated[:1]
        self.relevant = sample.task_type == "answerable"
        self.predicted_relevant = not self.completion.refuses if self.completion.is_readable else not self.relevant
        self.iou = union_iou(self.segments, sample.segments) if self.relevant else None
        self.ra_iou = self.iou if self.iou is not None else float(not self.predicted_relevant)

    @property
    def is_true_negative(self) -> bool:
        """Return True if a refusable query is refused."""
        return not self.relevant and not self.predicted_relevant

    @property
    def out_of_range(self) -> bool | None:
        """Return True if a segment is reversed or outside the video; None without a segment or a duration."""
        duration = self.prediction.sample.duration
        if not self.segments or duration is None:
            return None
        return not all(0 <= start < end <= duration + _ROUNDING_S for start, end in self.segments)


def _jaccard(predicted: set[str], true: set[str]) -> float:
    return len(predicted & true) / len(predicted | true) if predicted | true else 1.0


class _Columns(dict[str, list[float]]):
    """Columns of `size` samples, created with zeros on their first use; setting an item of a list is fast."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def __missing__(self, name: str) -> list[float]:
        return self.setdefault(name, [0.0] * self.size)

    def put_mean(self, name: str, values: Sequence[float | None]) -> None:
        """Add a column with a mean, unless all values are None; `NAME/n` counts the values that are not."""
        if any(value is not None for value in values):
            self[name] = [value or 0.0 for value in values]
            self[f"{name}/n"] = [value is not None for value in values]

    def put_overlap(self, name: str, values: Sequence[float | None]) -> None:
        """Add a column with the IoU of every sample, None where it does not apply, and one per threshold."""
        self.put_mean(name, values)
        if name in self:
            for recall, threshold in THRESHOLDS.items():
                self[f"{name}/{recall}"] = [value is not None and value >= threshold for value in values]

    def put_refusal(self, name: str, scored: Sequence[ScoredPrediction], values: Sequence[float | None]) -> None:
        """Add the mean over all refusable queries with a value, and over the true negatives; others count as 0."""
        is_refused = [row.is_true_negative for row in scored]
        pairs = list(zip(values, is_refused, strict=True))
        self.put_mean(f"{name}/all", [None if value is None else value * refused for value, refused in pairs])
        self.put_mean(f"{name}/true_negatives", [value if refused else None for value, refused in pairs])


def columns(scored: Sequence[ScoredPrediction]) -> dict[str, Column]:
    """Return the columns of all samples; `NAME/n` counts the samples that `NAME` sums over."""
    found = _Columns(len(scored))
    found["samples"] = [1.0] * len(scored)
    found["skipped"] = [row.prediction.skipped is not None for row in scored]
    for name, relevant, predicted in (
        ("tp", True, True),
        ("fp", False, True),
        ("fn", True, False),
        ("tn", False, False),
    ):
        found[name] = [row.relevant is relevant and row.predicted_relevant is predicted for row in scored]
    is_multi = [len(row.prediction.sample.segments) > 1 for row in scored]
    ious = [row.iou for row in scored]
    found.put_overlap("ra_iou", [row.ra_iou for row in scored])
    for name, selected in (("grounding", False), ("multi_grounding", True)):
        found.put_overlap(
            name, [iou if multi is selected else None for iou, multi in zip(ious, is_multi, strict=True)]
        )
    found.put_mean("format_rate", [row.completion.well_formed for row in scored])
    found.put_mean("answer_rate", [bool(row.completion.answer) for row in scored])
    found.put_mean("unreadable_rate", [row.completion.outcome == "unreadable" for row in scored])
    found.put_mean("length", [len(row.prediction.completion.split()) for row in scored])
    found.put_mean("out_of_range", [row.out_of_range for row in scored])
    found.put_mean("consistency", [row.prediction.consistency for row in scored])
    for name in dict.fromkeys(name for row in scored for name in row.prediction.rewards):
        found.put_mean(f"rewards/{name}", [row.prediction.rewards.get(name) for row in scored])
    _put_refusals(found, scored)
    return {name: np.array(column, float) for name, column in found.items()}


def _put_refusals(found: _Columns, scored: Sequence[ScoredPrediction]) -> None:
    """Add the columns that only refusable queries have: similarities and mismatch categories."""
    refusable = [None if row.relevant else row.prediction for row in scored]
    # Without a refusal or a correction the similarity is 0.
    found.put_refusal(
        "refusal_similarity",
        scored,
        [max(0.0, row.refusal_similarity or 0.0) if row and row.sample.gt_answer else None for row in refusable],
    )
    found.put_refusal(
        "correction_similarity",
        scored,
        [
            max(0.0, row.correction_similarity or 0.0) if row and row.sample.reference_queries else None
            for row in refusable
        ],
    )
    overlaps: list[float | None] = [None] * len(scored)
    for index, row in enumerate(refusable):
        if row is None or row.categories is None:
            continue
        true = set(row.sample.categories)
        predicted = set(row.categories) if scored[index].is_true_negative else set()
        overlaps[index] = _jaccard(predicted, true)
        for label in (predicted | true) & CATEGORIES:
            found[f"label/{label}/hits"][index] = label in predicted and label in true
            found[f"label/{label}/predicted"][index] = label in predicted
            found[f"label/{label}/true"][index] = label in true
    found.put_refusal("rt_iou", scored, overlaps)
