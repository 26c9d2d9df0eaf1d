"""Metrics of predictions. Every value is a fraction unless its name says otherwise.

Relevance is read by rule: a timestamp in the answer says that the query is relevant, an answer without one is
a refusal, and a completion without an answer is wrong whichever the truth is (decision D2).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rarft.evaluation.predict import Prediction
from rarft.response import parse
from rarft.segments import temporal_iou

THRESHOLDS = {"r_at_30": 0.3, "r_at_50": 0.5, "r_at_70": 0.7}


class Judged:
    """A prediction set against its truth.

    Attributes:
        relevant: whether the query is answerable.
        said_relevant: what the completion took it for; the opposite of the truth where it has no answer.
        iou: temporal IoU with the truth; None for a refusable query.
        ra_iou: 0 where relevance is wrong, 1 for a right refusal, else the temporal IoU (RA-IoU).
    """

    def __init__(self, prediction: Prediction) -> None:
        self.prediction = prediction
        self.response = parse(prediction.completion)
        truth = prediction.sample
        self.relevant = truth.task_type == "answerable"
        self.said_relevant = self.response.segment is not None if self.response.answer else not self.relevant
        self.iou: float | None = None
        if self.relevant:
            said, segment = self.response.segment, truth.segment
            self.iou = temporal_iou(said, segment) if said is not None and segment is not None else 0.0
        self.ra_iou = self.iou if self.iou is not None else float(not self.said_relevant)


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0


def _mean(values: Sequence[float]) -> float:
    return _ratio(sum(values), len(values))


def _scores(hits: int, said: int, true: int) -> dict[str, float]:
    """Precision, recall and F1 of one class from its hits, how often it was said, and how often it was true."""
    return {
        "precision": _ratio(hits, said),
        "recall": _ratio(hits, true),
        "f1": _ratio(2 * hits, said + true),
    }


def relevance(judged: Sequence[Judged]) -> dict[str, Any]:
    """Accuracy, scores of both classes, their mean F1, and the confusion with "relevant" as positive class."""
    tp = sum(row.relevant and row.said_relevant for row in judged)
    fp = sum(not row.relevant and row.said_relevant for row in judged)
    fn = sum(row.relevant and not row.said_relevant for row in judged)
    tn = len(judged) - tp - fp - fn
    relevant, irrelevant = _scores(tp, tp + fp, tp + fn), _scores(tn, tn + fn, tn + fp)
    return {
        "accuracy": _ratio(tp + tn, len(judged)),
        "relevant": relevant,
        "irrelevant": irrelevant,
        "f1_avg": (relevant["f1"] + irrelevant["f1"]) / 2,
        "confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }


def overlap(ious: Sequence[float]) -> dict[str, float]:
    """Mean IoU and the share of samples at or above each threshold."""
    recalls = {name: _mean([float(iou >= least) for iou in ious]) for name, least in THRESHOLDS.items()}
    return {"mean": _mean(ious), **recalls}


def _summary(judged: Sequence[Judged]) -> dict[str, Any]:
    rewards: dict[str, list[float]] = {}
    for row in judged:
        for name, value in row.prediction.rewards.items():
            rewards.setdefault(name, []).append(value)
    means = {name: _mean(values) for name, values in rewards.items()}
    return {
        "samples": len(judged),
        "relevance": relevance(judged),
        "ra_iou": overlap([row.ra_iou for row in judged]),
        "grounding": overlap([row.iou for row in judged if row.iou is not None]),
        "format_rate": _mean([float(row.response.well_formed) for row in judged]),
        "rewards": {**means, "total": sum(means.values())},
    }


def _breakdown(judged: Sequence[Judged], keys: Callable[[Judged], Iterable[str]]) -> dict[str, Any]:
    groups: dict[str, list[Judged]] = {}
    for row in judged:
        for key in keys(row):
            groups.setdefault(key, []).append(row)
    return {
        name: {
            "samples": len(rows),
            "accuracy": _mean([float(row.said_relevant == row.relevant) for row in rows]),
            "ra_iou": _mean([row.ra_iou for row in rows]),
        }
        for name, rows in sorted(groups.items())
    }


def compute_metrics(predictions: Sequence[Prediction]) -> dict[str, Any]:
    """All metrics of a set of predictions, and relevance and RA-IoU by difficulty and by mismatch category."""
    judged = [Judged(prediction) for prediction in predictions]
    return {
        **_summary(judged),
        "by_difficulty": _breakdown(judged, lambda row: [row.prediction.sample.difficulty or "unlabelled"]),
        "by_category": _breakdown(judged, lambda row: row.prediction.sample.categories),
    }


# The figures that a comparison shows: heading -> dotted path.
HEADLINE = {
    "Refusal F1": "relevance.irrelevant.f1",
    "Refusal precision": "relevance.irrelevant.precision",
    "Refusal recall": "relevance.irrelevant.recall",
    "Relevance accuracy": "relevance.accuracy",
    "RA-IoU": "ra_iou.mean",
    "RA R@0.3": "ra_iou.r_at_30",
    "RA R@0.5": "ra_iou.r_at_50",
    "RA R@0.7": "ra_iou.r_at_70",
    "mIoU of relevant queries": "grounding.mean",
    "Format rate": "format_rate",
    "Mean reward (the guide's)": "rewards.total",
}


def value_at(metrics: dict[str, Any], path: str) -> float:
    """The metric at a dotted path, such as `relevance.irrelevant.f1`."""
    value: Any = metrics
    for part in path.split("."):
        value = value[part]
    return float(value)
