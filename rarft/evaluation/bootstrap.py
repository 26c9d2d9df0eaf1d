"""How sure the figures are: 95 % intervals and paired differences, by resampling videos.

Queries of one video stand or fall together, so whole videos are drawn with replacement, not queries (a cluster
bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Intervals are
percentiles. Two checkpoints are compared on the same draws.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarft.evaluation.metrics import GROUPINGS, PredictionTable, Tree, mapped, metrics_from, value_at

RESAMPLES = 1000
_AT_A_TIME = 100
_TAILS = (2.5, 97.5)  # percent


def _videos(table: PredictionTable) -> NDArray[np.int64]:
    """Number of each sample's video."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(row.prediction.sample.video, len(numbers)) for row in table.judged])


def _draws(videos: int, seed: int) -> Iterator[NDArray[np.float32]]:
    """How often each video is drawn (resamples, videos), some resamples at a time; each of as many draws."""
    rng = np.random.default_rng(seed)
    for _ in range(RESAMPLES // _AT_A_TIME):
        yield np.stack(
            [np.bincount(rng.integers(0, videos, videos), minlength=videos) for _ in range(_AT_A_TIME)]
        ).astype(np.float32)


class _Part:
    """Sums per video of a group of samples, of the videos that have some."""

    def __init__(self, table: PredictionTable, videos: NDArray[np.int64], mask: NDArray[np.bool_] | None) -> None:
        rows = videos if mask is None else videos[mask]
        self.held, index = np.unique(rows, return_inverse=True)
        self.names = list(table.columns)
        parts = [
            np.bincount(index, weights=column if mask is None else column[mask], minlength=len(self.held))
            for column in table.columns.values()
        ]
        self._sums_VC = np.stack(parts, axis=1).astype(np.float32)
        self._resampled: list[NDArray[np.float32]] = []

    def add(self, draws_BV: NDArray[np.float32]) -> None:
        self._resampled.append(draws_BV[:, self.held] @ self._sums_VC)

    def sums(self) -> dict[str, NDArray[np.float64]]:
        """Each column's sum in every resample (B,)."""
        whole = np.concatenate(self._resampled).astype(np.float64)
        return {name: whole[:, index] for index, name in enumerate(self.names)}


def _resampled(table: PredictionTable, masks: Sequence[NDArray[np.bool_] | None], seed: int) -> list[_Part]:
    videos = _videos(table)
    parts = [_Part(table, videos, mask) for mask in masks]
    for draws in _draws(int(videos.max()) + 1, seed):
        for part in parts:
            part.add(draws)
    return parts


def _interval(values: Any) -> list[float] | None:
    known = np.asarray(values)
    known = known[~np.isnan(known)]
    return [float(value) for value in np.percentile(known, _TAILS)] if known.size else None


def _without_counts(tree: Tree) -> Tree:
    return {name: value for name, value in tree.items() if name != "samples"} | {
        "relevance": {name: value for name, value in tree["relevance"].items() if name != "confusion"}
    }


def intervals(table: PredictionTable, seed: int = 0) -> Tree:
    """95 % intervals [low, high] of every metric that `metrics_of` gives, groups included, in the same places."""
    keys = sorted(table.groups)
    parts = _resampled(table, [None, *(table.groups[key] for key in keys)], seed)
    trees = [mapped(_without_counts(metrics_from(part.sums())), _interval) for part in parts]
    groups: Tree = {grouping: {} for grouping in GROUPINGS}
    for (grouping, name), tree in zip(keys, trees[1:], strict=True):
        groups[grouping][name] = tree
    return trees[0] | groups


def paired(table: PredictionTable, base: PredictionTable, paths: Sequence[str], seed: int = 0) -> Tree:
    """Differences of a checkpoint to another on the same samples, in the same order.

    Returns:
        Per path `difference`, its 95 % `interval`, and `p`: how often, of both tails, a resample disagrees with the
        difference's sign (two-sided, at least 2 / (resamples + 1)); None where either is not known.
    """
    points = [metrics_from(one.sums()) for one in (table, base)]
    resampled = [metrics_from(_resampled(one, [None], seed)[0].sums()) for one in (table, base)]
    compared: Tree = {}
    for path in paths:
        values = [value_at(point, path) for point in points]
        differences = _at(resampled[0], path) - _at(resampled[1], path)
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


def _at(tree: Tree, path: str) -> Any:
    value: Any = tree
    for part in path.split("."):
        value = value[part]
    return np.asarray(value)
