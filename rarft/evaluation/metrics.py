"""Metrics of predictions, listed in docs/evaluation.md.

Relevance is read by rule: an answer with a segment claims that the query is relevant, a refusal that it is not. A
completion without an answer, or with unreadable times, is wrong whatever the truth is (decision D2). A skipped query,
whose video cannot be read, has no answer.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarft.annotations.schema import UNLABELED
from rarft.evaluation.predictions import Prediction
from rarft.evaluation.score_metrics import COUNTS, DEFAULT_THRESHOLD, SCORES, RefusalScores
from rarft.evaluation.scored_predictions import THRESHOLDS, Column, ScoredPrediction, columns

# Sums of columns: scalars, or one value per resample of a bootstrap.
Sums = Mapping[str, NDArray[np.float64]]
Tree = dict[str, Any]

_LENGTHS = ((5.0, "under 5 s"), (10.0, "5 to 10 s"), (30.0, "10 to 30 s"), (float("inf"), "over 30 s"))
_POSITIONS = ("beginning", "middle", "end")  # thirds of the video, by the center of the segment


def _ratio(numerator: Any, denominator: Any, empty: float) -> Any:
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, empty), where=denominator != 0)


def _mean(sums: Sums, name: str) -> Any:
    """Return the mean of a column; NaN if no sample has a value."""
    return _ratio(sums.get(name, np.zeros(())), sums.get(f"{name}/n", np.zeros(())), np.nan)


def _scores(hits: Any, predicted: Any, true: Any) -> Tree:
    """Return precision, recall and F1 of one class; 0 where the denominator is 0.

    In the resamples of a bootstrap, the scores of a class that was not drawn are NaN.
    """
    empty = np.nan if np.ndim(true) else 0.0
    absent = np.asarray(true) == 0
    f1 = _ratio(2 * hits, predicted + true, 0.0)
    return {
        "precision": _ratio(hits, predicted, empty),
        "recall": _ratio(hits, true, empty),
        "f1": np.where(absent, np.nan, f1) if np.ndim(true) else f1,
    }


def _relevance(sums: Sums) -> Tree:
    """Return accuracy, scores per class, mean F1, and the confusion matrix with "relevant" as the positive class."""
    tp, fp, fn, tn = (sums[name] for name in ("tp", "fp", "fn", "tn"))
    relevant, irrelevant = _scores(tp, tp + fp, tp + fn), _scores(tn, tn + fn, tn + fp)
    return {
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn, np.nan if np.ndim(tp) else 0.0),
        "relevant": relevant,
        "irrelevant": irrelevant,
        "f1_avg": (relevant["f1"] + irrelevant["f1"]) / 2,
        "confusion": {"tp": tp, "fp": fp, "fn": fn, "tn": tn},
    }


def _overlap(sums: Sums, name: str) -> Tree:
    count = sums.get(f"{name}/n", np.zeros(()))
    recalls = {recall: _ratio(sums.get(f"{name}/{recall}", np.zeros(())), count, np.nan) for recall in THRESHOLDS}
    return {"mean": _mean(sums, name), **recalls}


def _refusal_means(sums: Sums, name: str) -> Tree:
    return {part: _mean(sums, f"{name}/{part}") for part in ("all", "true_negatives")}


def _categories(sums: Sums) -> Tree:
    """Return RT-IoU, the Jaccard index of true and predicted mismatch categories, and the scores of each label."""
    names = sorted({name.rsplit("/", 1)[0] for name in sums if name.startswith("label/")})
    counts = {name: [sums[f"{name}/{part}"] for part in ("hits", "predicted", "true")] for name in names}
    labels = {name.removeprefix("label/"): _scores(*parts) for name, parts in counts.items()}
    total = [sum(parts) for parts in zip(*counts.values(), strict=True)]
    # Labels that are neither true nor predicted do not count in the mean.
    present = sum(predicted + true > 0 for _, predicted, true in counts.values())
    return {
        **_refusal_means(sums, "rt_iou"),
        "macro_f1": _ratio(sum(np.nan_to_num(scores["f1"]) for scores in labels.values()), present, np.nan),
        "micro_f1": _scores(*total)["f1"] if labels else np.asarray(np.nan),
        "labels": labels,
    }


def metrics_from(sums: Sums) -> Tree:
    """Return every metric from the sums of `scored_predictions.columns`, in the shape of the sums; NaN if unknown."""
    rewards = sorted(name for name in sums if name.startswith("rewards/") and not name.endswith("/n"))
    means = {name.removeprefix("rewards/"): _mean(sums, name) for name in rewards}
    return {
        "samples": sums["samples"],
        "skipped": sums["skipped"],
        "relevance": _relevance(sums),
        "ra_iou": _overlap(sums, "ra_iou"),
        "grounding": _overlap(sums, "grounding"),
        "multi_grounding": _overlap(sums, "multi_grounding"),
        "refusal_similarity": _refusal_means(sums, "refusal_similarity"),
        "correction_similarity": _refusal_means(sums, "correction_similarity"),
        "rt_iou": _categories(sums),
        "consistency": _mean(sums, "consistency"),
        "format_rate": _mean(sums, "format_rate"),
        "answer_rate": _mean(sums, "answer_rate"),
        "unreadable_rate": _mean(sums, "unreadable_rate"),
        "out_of_range_rate": _mean(sums, "out_of_range"),
        "mean_length": _mean(sums, "length"),
        "rewards": {**means, "total": sum(means.values()) if means else np.asarray(np.nan)},
    }


def map_tree(tree: Tree, function: Callable[[str, Any], Any]) -> Tree:
    """Apply a function to the name and value of every leaf of a tree."""
    return {
        name: map_tree(value, function) if isinstance(value, dict) else function(name, value)
        for name, value in tree.items()
    }


def _to_json(name: str, value: Any) -> int | float | None:
    """Convert a leaf to a JSON number: an integer for a count, None for NaN."""
    if name in ("samples", "skipped", "tp", "fp", "fn", "tn", *COUNTS):
        return int(value)
    return None if np.isnan(value) else float(value)


def _by_length(row: ScoredPrediction) -> list[str]:
    segment = row.prediction.sample.segment
    return [] if segment is None else [next(name for bound, name in _LENGTHS if segment[1] - segment[0] < bound)]


def _by_position(row: ScoredPrediction) -> list[str]:
    segment, duration = row.prediction.sample.segment, row.prediction.sample.duration
    if segment is None or not duration:
        return []
    return [_POSITIONS[max(0, min(2, int((segment[0] + segment[1]) / 2 / duration * 3)))]]


# Breakdowns: name in metrics.json -> groups that a sample belongs to.
GROUPINGS: dict[str, Callable[[ScoredPrediction], Iterable[str]]] = {
    "by_difficulty": lambda row: [row.prediction.sample.difficulty or UNLABELED],
    "by_category": lambda row: row.prediction.sample.categories,
    "by_length": _by_length,
    "by_position": _by_position,
}


class PredictionTable:
    """Predictions with their columns and groups.

    Attributes:
        predictions: The predictions.
        scored: The predictions compared with their truth.
        columns: Columns of `scored_predictions.columns`.
        all: Mask of all samples.
        groups: (grouping, group) -> mask of the samples in the group.
        refusal_scores: Refusal scores by their name in `SCORES`.
    """

    def __init__(
        self, predictions: Sequence[Prediction], thresholds: Mapping[str, float] = MappingProxyType({})
    ) -> None:
        """
        Args:
            predictions: The predictions.
            thresholds: Score from which on a query is refused, by name of the score; by default `DEFAULT_THRESHOLD`.
        """
        self.predictions, self.thresholds = predictions, thresholds
        self.scored = [ScoredPrediction(prediction) for prediction in predictions]
        self.columns: dict[str, Column] = columns(self.scored)
        self.all = np.ones(len(self.scored), bool)
        self.groups: dict[tuple[str, str], NDArray[np.bool_]] = {}
        for grouping, groups_of in GROUPINGS.items():
            members: dict[str, list[int]] = defaultdict(list)
            for index, row in enumerate(self.scored):
                for name in groups_of(row):
                    members[name].append(index)
            for name, indices in members.items():
                self.groups[grouping, name] = np.zeros_like(self.all)
                self.groups[grouping, name][indices] = True
        self.refusal_scores = {
            name: RefusalScores(self.scored, name, thresholds.get(name, DEFAULT_THRESHOLD)) for name in SCORES
        }

    def sums(self, mask: NDArray[np.bool_]) -> dict[str, NDArray[np.float64]]:
        """Return the sum of each column over the samples of a mask."""
        return {name: np.asarray(column[mask].sum()) for name, column in self.columns.items()}


def overall_metrics(table: PredictionTable) -> Tree:
    """Return the metrics of all samples, with those of the refusal scores; NaN if unknown."""
    scores = {name: one.metrics() for name, one in table.refusal_scores.items()}
    return metrics_from(table.sums(table.all)) | scores


def metrics_of(table: PredictionTable) -> Tree:
    """Return all metrics of a table, overall and per group; those of the refusal scores only overall."""
    metrics = map_tree(overall_metrics(table), _to_json) | {grouping: {} for grouping in GROUPINGS}
    for (grouping, name), mask in sorted(table.groups.items(), key=lambda group: group[0]):
        metrics[grouping][name] = map_tree(metrics_from(table.sums(mask)), _to_json)
    return metrics


# Metrics of the headline table: label -> dotted path.
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
    "mIoU, several segments": "multi_grounding.mean",
    "Refusal similarity": "refusal_similarity.all",
    "Correction similarity": "correction_similarity.all",
    "Refusal score: AUROC": "refusal_score.auroc",
    "Refusal score: false alarms at 95 % recall": "refusal_score.false_alarms_at_95_recall",
    "Refusal score: calibration error (ECE)": "refusal_score.ece",
    "Share of refusals: AUROC": "refusal_share.auroc",
    "Share of refusals: false alarms at 95 %": "refusal_share.false_alarms_at_95_recall",
    "Share of refusals: calibration error (ECE)": "refusal_share.ece",
    "Format rate": "format_rate",
    "Unreadable answers": "unreadable_rate",
    "Mean reward": "rewards.total",
}


def value_at(tree: Tree, path: str) -> Any:
    """Return the value at a dotted path, such as `relevance.irrelevant.f1`; None if it is unknown.

    Raises:
        KeyError: There is no value of that name.
    """
    value: Any = tree
    for part in path.split("."):
        if not isinstance(value, dict) or part not in value:
            raise KeyError(path)
        value = value[part]
    if isinstance(value, dict):
        raise KeyError(path)
    return value
