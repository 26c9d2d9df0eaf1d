"""Check whether the queries alone give the answer away: a classifier that never sees the video.

A bag of words with logistic regression is trained to separate the two. AUROC is the probability
that it scores a random negative above a random answerable query: 0.5 if the words show nothing, 1.0 if they show all.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rarft.negatives.english import words_of

_FOLDS = 5
_STEPS = 100
_LEARNING_RATE = 0.3
_L2 = 1e-3
_MAX_QUERIES = 5_000  # of each class; more hardly change the AUROC
_MIN_QUERIES = 50  # of each class, for a meaningful AUROC

Floats = NDArray[np.float64]


def auroc(scores: Floats, labels: NDArray[np.bool_]) -> float:
    """Return the probability that a score with label True is above one with label False; ties count half."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse]  # from 1, ties share their mean
    positives = int(labels.sum())
    negatives = len(labels) - positives
    return float((ranks[labels].sum() - positives * (positives + 1) / 2) / (positives * negatives))


class _Bags:
    """Words of each text as indices, one after the other, without repeated words."""

    def __init__(self, texts: Sequence[str]) -> None:
        index: dict[str, int] = {}
        bags = [sorted({index.setdefault(word, len(index)) for word in set(words_of(text))}) for text in texts]
        self.words = max(1, len(index))
        self.rows = np.repeat(np.arange(len(bags)), [len(bag) for bag in bags])
        self.columns = np.array([word for bag in bags for word in bag], np.int64)

    def select(self, chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return rows, renumbered from 0, and columns of the chosen texts."""
        kept = chosen[self.rows]
        return (np.cumsum(chosen) - 1)[self.rows[kept]], self.columns[kept]


def _fit(rows: NDArray[np.int64], columns: NDArray[np.int64], labels: Floats, words: int) -> tuple[Floats, float]:
    """Return weights and bias of a logistic regression, fitted by Adam on all texts; both classes count the same."""
    share = labels.mean()
    importance = np.where(labels == 1, 0.5 / share, 0.5 / (1 - share)) / len(labels)
    parameters, first, second = (np.zeros(words + 1) for _ in range(3))
    for step in range(1, _STEPS + 1):
        logits = np.bincount(rows, parameters[columns], len(labels)) + parameters[-1]
        errors = importance * (1 / (1 + np.exp(-np.clip(logits, -30, 30))) - labels)
        gradient = np.append(np.bincount(columns, errors[rows], words), errors.sum())
        gradient[:-1] += _L2 * parameters[:-1]
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        rate = _LEARNING_RATE * (1 - step / (_STEPS + 1))
        parameters -= rate * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return parameters[:-1], float(parameters[-1])


def text_only_auroc(answerable: Sequence[str], negatives: Sequence[tuple[str, str]], seed: int = 0) -> float | None:
    """Return the cross-validated AUROC of the classifier; None for fewer than 50 queries of a class.

    Args:
        answerable: Answerable queries.
        negatives: Refusable queries, each with the answerable query that it was made from, or that it is. Both are in
            one fold: in different ones, the classifier would learn that the copy of a query is of the other class.
        seed: Random seed for the folds, and for the sample of larger data.
    """
    if min(len(answerable), len(negatives)) < _MIN_QUERIES:
        return None
    rng = np.random.default_rng(seed)
    sampled = [
        [group[index] for index in sorted(rng.permutation(len(group))[:_MAX_QUERIES])]
        for group in ([(query, query) for query in answerable], negatives)
    ]
    labels = np.repeat([False, True], [len(sampled[0]), len(sampled[1])])
    rows = sampled[0] + sampled[1]
    bags = _Bags([text for text, _ in rows])
    indices: dict[str, int] = {}
    origins = np.array([indices.setdefault(origin, len(indices)) for _, origin in rows])
    folds = rng.integers(_FOLDS, size=len(indices))[origins]
    aurocs = []
    for fold in range(_FOLDS):
        held_out = folds == fold
        if len(set(labels[held_out])) < 2 or len(set(labels[~held_out])) < 2:
            continue
        weights, bias = _fit(*bags.select(~held_out), labels[~held_out].astype(float), bags.words)
        test_rows, test_columns = bags.select(held_out)
        logits = np.bincount(test_rows, weights[test_columns], int(held_out.sum())) + bias
        aurocs.append(auroc(logits.astype(np.float64), labels[held_out]))
    return round(float(np.mean(aurocs)), 4) if aurocs else None
