"""Metrics of refusal scores: how well they separate absent from present moments, and how well they are calibrated.

A query is *present* if it is answerable, and *absent* otherwise. It is refused if its score reaches a threshold:

- a *false alarm* is an absent query that is answered, a *miss* a present query that is refused;
- AUROC and average precision are those of absent queries as the positive class (ties count as scikit-learn's do);
- *false alarms at 95 % recall* is the false-alarm rate at the lowest threshold with a miss rate of at most 5 %;
- ECE is the mean, over queries, of |mean score - share of absent queries| of the query's bin, of ten equal bins;
- the best threshold minimizes the mean of the false-alarm and the miss rate.

Shapes: N scored queries, K groups of equal scores in ascending order, B resamples, V videos.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarft.evaluation.scored_predictions import ScoredPrediction

Floats = NDArray[np.float64]
Metrics = dict[str, Any]

# Field of a prediction -> name in pages.
SCORES = {"refusal_score": "refusal score", "refusal_share": "share of refusals"}
DEFAULT_THRESHOLD = 0.5
COUNTS = ("scored",)  # of queries
BINS = 10
_MAX_GROUPS = 1000  # in resamples: more scores are grouped by rank, and count as ties


class RefusalScores:
    """One kind of score of all predictions.

    Attributes:
        index_N: Index of each scored prediction.
        score_N: Its score.
        absent_N: Whether the query is absent.
        threshold: Score from which on a query is refused.
    """

    def __init__(self, rows: Sequence[ScoredPrediction], name: str, threshold: float) -> None:
        values = [getattr(row.prediction, name) for row in rows]
        self.index_N = np.array([index for index, value in enumerate(values) if value is not None], np.int64)
        self.score_N = np.array([values[index] for index in self.index_N], float)
        self.absent_N = np.array([not rows[index].relevant for index in self.index_N], bool)
        self.threshold = threshold

    def metrics(self) -> Metrics:
        """Return the metrics; NaN where a class has no queries."""
        score_K, group_N = np.unique(self.score_N, return_inverse=True)
        counts_2K = self._counts(group_N, len(score_K))
        absent_K, present_K = counts_2K
        metrics = _ranking(absent_K, present_K) | self._at_threshold(self._total())
        settings = {"threshold": self.threshold, "best_threshold": _best_threshold(score_K, absent_K, present_K)}
        return {"scored": len(self.score_N)} | metrics | settings

    def reliability(self) -> list[tuple[float, float, int]]:
        """Return the mean score, the share of absent queries and the number of queries of each bin that has any."""
        sums = self._total()[: 3 * BINS].reshape(3, BINS)
        return [(score / count, absent / count, int(count)) for score, absent, count in sums.T.tolist() if count]

    def trade_off(self) -> list[tuple[float, float]]:
        """Return (false-alarm rate, miss rate) by threshold, from one that refuses all to one that refuses none."""
        _, group_N = np.unique(self.score_N, return_inverse=True)
        absent_K, present_K = self._counts(group_N, int(group_N.max()) + 1)
        accepted = np.concatenate([[0.0], absent_K.cumsum()]) / absent_K.sum()
        refused = 1 - np.concatenate([[0.0], present_K.cumsum()]) / present_K.sum()
        return list(zip(accepted.tolist(), refused.tolist(), strict=True))

    def _counts(self, group_N: NDArray[np.int64], size: int) -> Floats:
        return np.stack(
            [np.bincount(group_N[mask], minlength=size).astype(float) for mask in (self.absent_N, ~self.absent_N)]
        )

    def _sums(self, group_N: NDArray[np.int64], size: int) -> Floats:
        """Return the sums over the queries of each group (size, 3 * BINS + 4).

        They are, per bin, scores, absent queries and queries; then absent queries, answered ones of them, present
        queries, and refused ones of them.
        """
        bin_N = np.minimum((self.score_N * BINS).astype(np.int64), BINS - 1)
        absent, refused = self.absent_N, self.score_N >= self.threshold
        columns = [
            np.bincount(group_N * BINS + bin_N, values, size * BINS).reshape(size, BINS)
            for values in (self.score_N, absent.astype(float), np.ones_like(self.score_N))
        ]
        kinds = (absent, absent & ~refused, ~absent, ~absent & refused)
        columns += [np.bincount(group_N, kind.astype(float), size)[:, None] for kind in kinds]
        return np.concatenate(columns, axis=1)

    def _total(self) -> Floats:
        total: Floats = self._sums(np.zeros(len(self.score_N), np.int64), 1)[0]
        return total

    @staticmethod
    def _at_threshold(sums: Floats) -> Metrics:
        """Return the metrics that depend on the values of the scores, from `_sums` of shape (..., 3 * BINS + 4)."""
        score, absent, count, rates = np.split(sums, [BINS, 2 * BINS, 3 * BINS], axis=-1)
        absent_total, accepted, present_total, refused = np.moveaxis(rates, -1, 0)
        return {
            "ece": _ratio(np.abs(score - absent).sum(-1), count.sum(-1)),
            "false_alarm_rate": _ratio(accepted, absent_total),
            "miss_rate": _ratio(refused, present_total),
        }

    def resampler(self, video_of: NDArray[np.int64]) -> "ScoreResampler":
        """Return the metrics as a function of how often each video is drawn."""
        return ScoreResampler(self, video_of)


class ScoreResampler:
    """The same metrics in resamples of videos.

    Args:
        scores: Scores of the predictions.
        video_of: Index of the video of every prediction.
    """

    def __init__(self, scores: RefusalScores, video_of: NDArray[np.int64]) -> None:
        self._scores = scores
        _, group_N, size_K = np.unique(scores.score_N, return_inverse=True, return_counts=True)
        if len(size_K) > _MAX_GROUPS:
            first_K = size_K.cumsum() - size_K
            _, group_N = np.unique((first_K * _MAX_GROUPS // len(group_N))[group_N], return_inverse=True)
        self._size = int(group_N.max()) + 1 if len(group_N) else 0
        key_N = 2 * group_N + scores.absent_N
        order_N = np.argsort(key_N, kind="stable")
        self._keys, self._starts = np.unique(key_N[order_N], return_index=True)
        self._video_N = video_of[scores.index_N[order_N]]
        videos = int(video_of.max()) + 1
        self._sums_VC = scores._sums(video_of[scores.index_N], videos).astype(np.float32)

    def __call__(self, draws_BV: NDArray[np.float32]) -> Metrics:
        """Return each metric in every resample (B,)."""
        if not self._size:
            return {name: np.full(len(draws_BV), np.nan) for name in METRICS}
        counts = np.zeros((len(draws_BV), 2 * self._size))
        # One resample at a time stays in the processor's cache.
        counts[:, self._keys] = [np.add.reduceat(draw_V[self._video_N], self._starts) for draw_V in draws_BV]
        sums = (draws_BV @ self._sums_VC).astype(float)
        return _ranking(counts[:, 1::2], counts[:, ::2]) | self._scores._at_threshold(sums)


METRICS = (
    "auroc",
    "average_precision",
    "false_alarms_at_95_recall",
    "ece",
    "false_alarm_rate",
    "miss_rate",
)


def _ratio(numerator: Any, denominator: Any) -> Any:
    numerator, denominator = np.broadcast_arrays(np.asarray(numerator, float), np.asarray(denominator, float))
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=denominator != 0)


def _ranking(absent: Floats, present: Floats) -> Metrics:
    """Return the metrics that depend only on the order, from counts of absent and present queries (..., K)."""
    absent_total, present_total = absent.sum(-1), present.sum(-1)
    accepted_present = present.cumsum(-1)  # by the threshold above each group
    pairs = (absent * (accepted_present - present / 2)).sum(-1)
    refused_absent = absent[..., ::-1].cumsum(-1)[..., ::-1]
    refused_present = present[..., ::-1].cumsum(-1)[..., ::-1]
    precision = np.nan_to_num(_ratio(refused_absent, refused_absent + refused_present))
    reached = 20 * accepted_present >= 19 * present_total[..., None]  # whole numbers: 95 % without rounding
    is_known = (absent_total > 0) & (present_total > 0)
    cut = reached.argmax(-1) if reached.shape[-1] else np.zeros(reached.shape[:-1], int)
    accepted_absent = absent.cumsum(-1)
    at_cut = np.take_along_axis(accepted_absent, cut[..., None], -1)[..., 0] if reached.shape[-1] else absent_total
    found = {
        "auroc": _ratio(pairs, absent_total * present_total),
        "average_precision": _ratio((absent * precision).sum(-1), absent_total),
        "false_alarms_at_95_recall": _ratio(at_cut, absent_total),
    }
    return {name: np.where(is_known, value, np.nan) for name, value in found.items()}


def _best_threshold(score_K: Floats, absent_K: Floats, present_K: Floats) -> float:
    """Return the threshold with the smallest mean of the false-alarm and the miss rate, midway between two scores."""
    if not absent_K.sum() or not present_K.sum():
        return float("nan")
    # Query k and later are refused.
    false_alarms = (absent_K.cumsum() - absent_K) / absent_K.sum()
    misses = present_K[::-1].cumsum()[::-1] / present_K.sum()
    best = int((false_alarms + misses).argmin())
    return float(score_K[max(0, best - 1)] + score_K[best]) / 2
