"""Predictions as columns of numbers, from whose sums every metric follows.

A metric is a ratio of sums over samples, so that the same formula serves all samples, any group of them, and every
resample of a bootstrap.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rarft.annotations.schema import CATEGORIES
from rarft.completion import parse_completion
from rarft.evaluation.predictions import Prediction
from rarft.segments import temporal_iou

Column = NDArray[np.float64]
_ROUNDING = 0.005  # seconds: completions give times in hundredths
THRESHOLDS = {"r_at_30": 0.3, "r_at_50": 0.5, "r_at_70": 0.7}


class ScoredPrediction:
    """A prediction set against its truth.

    Attributes:
        relevant: whether the query is answerable.
        predicted_relevant: what the completion took it for; the opposite of the truth where it has no answer.
        iou: temporal IoU with the truth; None for a refusable query.
        ra_iou: 0 where relevance is wrong, 1 for a right refusal, else the temporal IoU (RA-IoU).
    """

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction
        self.response = parse_completion(prediction.completion)
        truth = prediction.sample
        self.relevant = truth.task_type == "answerable"
        self.predicted_relevant = self.response.segment is not None if self.response.answer else not self.relevant
        self.iou: float | None = None
        if self.relevant:
            said, segment = self.response.segment, truth.segment
            self.iou = temporal_iou(said, segment) if said is not None and segment is not None else 0.0
        self.ra_iou = self.iou if self.iou is not None else float(not self.predicted_relevant)

    @property
    def is_true_negative(self) -> bool:
        """A true negative."""
        return not self.relevant and not self.predicted_relevant

    @property
    def out_of_range(self) -> bool | None:
        """Whether the segment leaves the video or is none at all; None without a segment or a known duration."""
        segment, duration = self.response.segment, self.prediction.sample.duration
        if segment is None or duration is None:
            return None
        return not 0 <= segment[0] < segment[1] <= duration + _ROUNDING


def _jaccard(said: set[str], true: set[str]) -> float:
    return len(said & true) / len(said | true) if said | true else 1.0


def columns(judged: Sequence[ScoredPrediction]) -> dict[str, Column]:
    """The columns of all samples; a name `x/n` counts the samples that `x` sums over."""
    size = len(judged)
    found: dict[str, Column] = {}

    def put(name: str, index: int, value: float) -> None:
        if name not in found:
            found[name] = np.zeros(size)
        found[name][index] = value

    def mean(name: str, index: int, value: float) -> None:
        put(name, index, value)
        put(f"{name}/n", index, 1.0)

    for index, row in enumerate(judged):
        prediction, response = row.prediction, row.response
        put("samples", index, 1.0)
        right = "t" if row.relevant == row.predicted_relevant else "f"
        put(right + ("p" if row.predicted_relevant else "n"), index, 1.0)
        for name, value in (("ra_iou", row.ra_iou), ("grounding", row.iou)):
            if value is not None:
                mean(name, index, value)
                for recall, least in THRESHOLDS.items():
                    put(f"{name}/{recall}", index, float(value >= least))
        mean("format_rate", index, float(response.well_formed))
        mean("answer_rate", index, float(bool(response.answer)))
        mean("length", index, float(len(prediction.completion.split())))
        if (outside := row.out_of_range) is not None:
            mean("out_of_range", index, float(outside))
        for name, value in prediction.rewards.items():
            mean(f"rewards/{name}", index, value)
        if prediction.consistency is not None:
            mean("consistency", index, float(prediction.consistency))
        if not row.relevant:
            _refusable(row, index, mean, put)
    for name in ("samples", "tp", "fp", "fn", "tn"):
        found.setdefault(name, np.zeros(size))
    return found


def _refusable(row: ScoredPrediction, index: int, mean, put) -> None:  # type: ignore[no-untyped-def]
    prediction = row.prediction
    comparable = {
        "refusal_similarity": (prediction.refusal_similarity, bool(prediction.sample.gt_answer)),
        "correction_similarity": (prediction.correction_similarity, bool(prediction.sample.reference_queries)),
    }
    for name, (similarity, has_truth) in comparable.items():
        if not has_truth:
            continue
        # One that refuses nothing, or corrects nothing, is not like the truth at all.
        mean(f"{name}/all", index, max(0.0, similarity or 0.0) if row.is_true_negative else 0.0)
        if row.is_true_negative:
            mean(f"{name}/true_negatives", index, max(0.0, similarity or 0.0))
    if prediction.categories is None:
        return
    said, true = set(prediction.categories) if row.is_true_negative else set(), set(prediction.sample.categories)
    overlap = _jaccard(said, true) if row.is_true_negative else 0.0
    mean("rt_iou/all", index, overlap)
    if row.is_true_negative:
        mean("rt_iou/true_negatives", index, overlap)
    for label in (said | true) & CATEGORIES:
        put(f"label/{label}/hits", index, float(label in said and label in true))
        put(f"label/{label}/said", index, float(label in said))
        put(f"label/{label}/true", index, float(label in true))
