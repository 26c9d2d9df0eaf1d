"""95 % confidence intervals and paired differences by resampling videos.

Results of the queries of one video are correlated, so videos are drawn with replacement, not queries (a cluster
bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Intervals are
percentiles. Two candidates are compared on the same draws.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarft.evaluation.metrics import GROUPINGS, PredictionTable, Tree, map_tree, metrics_from, value_at

RESAMPLES = 1000
_CHUNK = 100  # resamples per matrix product
_TAILS = (2.5, 97.5)  # percent


def _video_indices(table: PredictionTable) -> NDArray[np.int64]:
    """Return the index of each sample's video (N,)."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(row.prediction.sample.video, len(numbers)) for row in table.scored])


def _draws(videos: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """Yield how often each video is drawn, for some resamples at a time (B, V)."""
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES // _CHUNK):
        yield np.stack([np.bincount(rng.integers(0, videos, videos), minlength=videos) for _ in range(_CHUNK)]).astype(
            np.float32
        )


class _GroupSums:
    """Column sums of a group of samples, per video that has any of them, and per resample."""

    def __init__(self, table: PredictionTable, videos: NDArray[np.int64], mask: NDArray[np.bool_] | None) -> None:
        rows = videos if mask is None else videos[mask]
        self._videos, index = np.unique(rows, return_inverse=True)
        self._names = list(table.columns)
        sums = [
            np.bincount(index, weights=column if mask is None else column[mask], minlength=len(self._videos))
            for column in table.columns.values()
        ]
        self._sums_VC = np.stack(sums, axis=1).astype(np.float32)
        self._resampled: list[NDArray[np.float32]] = []

    def add(self, draws_BV: NDArray[np.float32]) -> None:
        """Add the sums of some resamples."""
        self._resampled.append(draws_BV[:, self._videos] @ self._sums_VC)

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Return each column's sum in every resample (B,)."""
        sums_BC = np.concatenate(self._resampled).astype(np.float64)
        return {name: sums_BC[:, index] for index, name in enumerate(self._names)}


def _resample(table: PredictionTable, masks: Sequence[NDArray[np.bool_] | None], seed: int) -> list[Tree]:
    """Return the metrics of each group of samples in every resample (B,)."""
    videos = _video_indices(table)
    groups = [_GroupSums(table, videos, mask) for mask in masks]
    for draws_BV in _draws(int(videos.max()) + 1, seed):
        for group in groups:
            group.add(draws_BV)
    return [metrics_from(group.sums()) for group in groups]


def _interval(values: Any) -> list[float] | None:
    known = np.asarray(values)
    known = known[~np.isnan(known)]
    return [float(value) for value in np.percentile(known, _TAILS)] if known.size else None


def _without_counts(tree: Tree) -> Tree:
    return {name: value for name, value in tree.items() if name != "samples"} | {
        "relevance": {name: value for name, value in tree["relevance"].items() if name != "confusion"}
    }


def intervals(table: PredictionTable, seed: int = 0) -> Tree:
    """Return the 95 % interval [low, high] of every metric of `metrics_of`, groups included, under the same names."""
    keys = sorted(table.groups)
    resampled = _resample(table, [None, *(table.groups[key] for key in keys)], seed)
    trees = [map_tree(_without_counts(tree), _interval) for tree in resampled]
    groups: Tree = {grouping: {} for grouping in GROUPINGS}
    for (grouping, name), tree in zip(keys, trees[1:], strict=True):
        groups[grouping][name] = tree
    return trees[0] | groups


def paired(table: PredictionTable, base: PredictionTable, paths: Sequence[str], seed: int = 0) -> Tree:
    """Compare two candidates on the same samples, in the same order.

    Returns:
        Per path the `difference`, its 95 % `interval`, and the two-sided `p`: the share of resamples, at least
        2 / (resamples + 1), whose difference does not have the same sign. None where either metric is unknown.
    """
    points = [metrics_from(one.sums()) for one in (table, base)]
    resampled = [_resample(one, [None], seed)[0] for one in (table, base)]
    compared: Tree = {}
    for path in paths:
        values = [value_at(point, path) for point in points]
        differences = _array_at(resampled[0], path) - _array_at(resampled[1], path)
        differences = differences[~np.isnan(differences)]
        known = [value for value in values if value is not None and not np.isnan(value)]
        if len(known) < 2 or not differences.size:
            compared[path] = None
            continue
        tails = [int((differences <= 0).sum()), int((differences >= 0).sum())]
        compared[path] = {
            "difference": known[0] - known[1],
            "interval": _interval(differences),
            "p": min(1.0, 2 * (min(tails) + 1) / (len(differences) + 1)),
        }
    return compared


def _array_at(tree: Tree, path: str) -> Any:
    value: Any = tree
    for part in path.split("."):
        value = value[part]
    return np.asarray(value)
