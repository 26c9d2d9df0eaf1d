"""95 % confidence intervals and paired differences by resampling videos.

Results of the queries of one video are correlated, so videos are drawn with replacement, not queries (a cluster
bootstrap; Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). Intervals are
percentiles. Two candidates are compared on the same draws.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarft.evaluation.metrics import (
    GROUPINGS,
    PredictionTable,
    Tree,
    map_tree,
    metrics_from,
    overall_metrics,
    value_at,
)
from rarft.evaluation.score_metrics import METRICS

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
        draws = [np.bincount(rng.integers(0, videos, videos), minlength=videos) for _ in range(_CHUNK)]
        yield np.stack(draws).astype(np.float32)


def _video_sums(
    table: PredictionTable, videos: NDArray[np.int64], mask: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the videos (V,) that have samples in the mask, and the column sums of those samples per video (V, C)."""
    present, index = np.unique(videos[mask], return_inverse=True)
    sums = [np.bincount(index, column[mask], minlength=len(present)) for column in table.columns.values()]
    return present, np.stack(sums, axis=1).astype(np.float32)


@functools.lru_cache(maxsize=8)
def _resample(table: PredictionTable, seed: int) -> tuple[Tree, dict[tuple[str, str], Tree]]:
    """Return the metrics of all samples in every resample (B,), and the intervals of each group."""
    videos = _video_indices(table)
    groups = [_video_sums(table, videos, mask) for mask in (table.all, *table.groups.values())]
    sums: list[list[NDArray[np.float32]]] = [[] for _ in groups]
    resamplers = {name: scores.resampler(videos) for name, scores in table.refusal_scores.items()}
    scores: dict[str, list[Tree]] = {name: [] for name in resamplers}
    for draws_BV in _draws(int(videos.max()) + 1, seed):
        for (present, sums_VC), chunks in zip(groups, sums, strict=True):
            chunks.append(draws_BV[:, present] @ sums_VC)
        for name, resample in resamplers.items():
            scores[name].append(resample(draws_BV))
    trees = (
        metrics_from(dict(zip(table.columns, np.concatenate(chunks).astype(float).T, strict=True))) for chunks in sums
    )
    overall = next(trees) | {
        name: {metric: np.concatenate([chunk[metric] for chunk in chunks]) for metric in METRICS}
        for name, chunks in scores.items()
    }
    return overall, {key: _intervals(tree) for key, tree in zip(table.groups, trees, strict=True)}


def _interval(values: Any) -> list[float] | None:
    known = np.asarray(values)
    known = known[~np.isnan(known)]
    return [float(value) for value in np.percentile(known, _TAILS)] if known.size else None


def _intervals(tree: Tree) -> Tree:
    """Return the intervals of the metrics of every resample, without the counts."""
    rates = {name: value for name, value in tree.items() if name not in ("samples", "skipped")} | {
        "relevance": {name: value for name, value in tree["relevance"].items() if name != "confusion"}
    }
    return map_tree(rates, lambda _, values: _interval(values))


def intervals(table: PredictionTable, seed: int = 0) -> Tree:
    """Return the 95 % interval [low, high] of every metric of `metrics_of`, groups included, under the same names."""
    overall, of_groups = _resample(table, seed)
    groups: Tree = {grouping: {} for grouping in GROUPINGS}
    for (grouping, name), tree in sorted(of_groups.items(), key=lambda group: group[0]):
        groups[grouping][name] = tree
    return _intervals(overall) | groups


def paired(table: PredictionTable, base: PredictionTable, paths: Sequence[str], seed: int = 0) -> Tree:
    """Compare two candidates on the same samples, in the same order; those that either skipped are left out.

    Returns:
        Per path the `difference`, its 95 % `interval`, and the two-sided `p`: the share of resamples, at least
        2 / (resamples + 1), whose difference does not have the same sign. None where either metric is unknown; the
        last two are None where it is unknown in every resample.
    """
    pairs = list(zip(table.predictions, base.predictions, strict=True))
    kept = [pair for pair in pairs if pair[0].skipped is None and pair[1].skipped is None]
    if not kept:
        return dict.fromkeys(paths)
    tables = (
        [table, base]
        if len(kept) == len(pairs)
        else [
            PredictionTable(rows, one.thresholds)
            for one, rows in zip((table, base), zip(*kept, strict=True), strict=True)
        ]
    )
    points = [overall_metrics(one) for one in tables]
    resampled = [_resample(one, seed)[0] for one in tables]
    compared: Tree = {}
    for path in paths:
        value, reference = (float(value_at(point, path)) for point in points)
        differences = np.subtract(*(value_at(one, path) for one in resampled))
        differences = differences[~np.isnan(differences)]
        if np.isnan(value - reference):
            compared[path] = None
            continue
        tails = [int((differences <= 0).sum()), int((differences >= 0).sum())]
        compared[path] = {
            "difference": value - reference,
            "interval": _interval(differences),
            "p": min(1.0, 2 * (min(tails) + 1) / (len(differences) + 1)) if differences.size else None,
        }
    return compared
