"""The text-only classifier, compared with scikit-learn."""

import random

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_score

from rarft.negatives.text_only import auroc, text_only_auroc

WORDS = "red blue green dog cat horse runs sits jumps door window table".split()  # noqa: SIM905


def texts(seed, number, weights):
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, weights, k=4)) + f" n{index}" for index in range(number)]


@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_auroc_matches_scikit_learn(levels):
    rng = np.random.default_rng(levels)
    scores, labels = rng.integers(levels, size=400).astype(float), rng.random(400) < 0.3
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))


@pytest.mark.parametrize("bias", [1, 2, 4])
def test_text_only_auroc_matches_scikit_learn(bias):
    positives = texts(1, 1500, [1] * 12)
    negatives = texts(2, 1500, [bias, 1, 1, 1, 1, bias, 1, 1, 1, 1, 1, 1])
    features = CountVectorizer(binary=True).fit_transform(positives + negatives)
    labels = np.repeat([0, 1], 1500)
    scores = cross_val_score(
        LogisticRegression(max_iter=1000), features, labels, scoring="roc_auc",
        groups=np.tile(np.arange(1500), 2), cv=GroupKFold(5, shuffle=True, random_state=0),
    )  # fmt: skip
    measured = text_only_auroc(positives, list(zip(negatives, positives, strict=True)))
    assert measured == pytest.approx(scores.mean(), abs=0.02)


def test_copies_of_answerable_queries_show_nothing():
    """Shuffled negatives are copies; without common folds, a copy would predict the other class (AUROC below 0.5)."""
    positives = texts(3, 600, [1] * 12)
    assert text_only_auroc(positives, [(text, text) for text in positives]) == pytest.approx(0.5, abs=0.01)


def test_too_few_queries():
    positives = texts(4, 200, [1] * 12)
    assert text_only_auroc(positives, [(text, text) for text in positives[:49]]) is None
