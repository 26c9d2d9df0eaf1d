"""Refusal scores in tokenizers, and their metrics compared with scikit-learn and values computed by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from helpers.paths import ROOT
from helpers.predictions import REFUSAL, prediction
from rarft.completion import answer_start, render_completion
from rarft.evaluation.bootstrap import intervals
from rarft.evaluation.metrics import PredictionTable, metrics_of
from rarft.evaluation.refusal_score import RefusalScorer
from rarft.evaluation.score_metrics import METRICS, RefusalScores
from rarft.evaluation.scored_predictions import ScoredPrediction
from rarft.models.qwen2_5_vl.load import load_processor


def rows_of(pairs, name="refusal_score"):
    """Return predictions of (score, whether the moment is absent), two per video."""
    return [
        prediction("refusable" if absent else "answerable", REFUSAL, None, video=f"{index // 2}.mp4", **{name: score})
        for index, (score, absent) in enumerate(pairs)
    ]


def metrics(pairs, threshold=0.5):
    return RefusalScores([ScoredPrediction(row) for row in rows_of(pairs)], "refusal_score", threshold).metrics()


PAIRS = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.75, 1.0]) | st.floats(0, 1), st.booleans()), min_size=2
)


@given(PAIRS.filter(lambda pairs: len({absent for _, absent in pairs}) == 2))
@settings(deadline=None)
def test_metrics_equal_sklearn(pairs):
    scores, absent = (np.array(column) for column in zip(*pairs, strict=True))
    found = metrics(pairs)
    assert found["auroc"] == pytest.approx(roc_auc_score(absent, scores))
    assert found["average_precision"] == pytest.approx(average_precision_score(absent, scores))
    false_alarms, recall, _ = roc_curve(~absent, -scores, drop_intermediate=False)
    assert found["false_alarms_at_95_recall"] == pytest.approx(false_alarms[recall >= 0.95 - 1e-12].min())
    assert found["false_alarm_rate"] == pytest.approx((scores[absent] < 0.5).mean())
    assert found["miss_rate"] == pytest.approx((scores[~absent] >= 0.5).mean())
    best = found["best_threshold"]
    errors = [(scores[absent] < t).mean() + (scores[~absent] >= t).mean() for t in (*scores, best)]
    assert errors[-1] == pytest.approx(min(errors))


def test_calibration_error_by_hand():
    pairs = [(0.02, False), (0.08, True), (0.55, True), (1.0, True), (0.9, False), (0.95, True)]
    # bin 0: mean 0.05, half absent; bin 5: 0.55, all absent; bin 9: mean 0.95, two thirds absent
    expected = (2 * abs(0.05 - 1 / 2) + 1 * abs(0.55 - 1) + 3 * abs(0.95 - 2 / 3)) / 6
    assert metrics(pairs)["ece"] == pytest.approx(expected)
    rows = [ScoredPrediction(row) for row in rows_of(pairs)]
    bins = RefusalScores(rows, "refusal_score", 0.5).reliability()
    assert [count for _, _, count in bins] == [2, 1, 3]
    assert [value for point in bins for value in point[:2]] == pytest.approx([0.05, 0.5, 0.55, 1.0, 0.95, 2 / 3])


def test_intervals_equal_repeated_predictions():
    """A resample has the metrics of the predictions repeated as often as their videos are drawn."""
    rng = np.random.default_rng(0)
    pairs = [(round(rng.random(), 1), bool(rng.random() < 0.5)) for _ in range(40)]
    table = PredictionTable(rows_of(pairs))
    draws = rng.multinomial(20, np.full(20, 1 / 20), size=8).astype(np.float32)
    resampled = table.refusal_scores["refusal_score"].resampler(np.arange(40) // 2)(draws)
    for index, counts in enumerate(draws.astype(int)):
        repeated = [pair for video, count in enumerate(counts) for pair in pairs[2 * video : 2 * video + 2] * count]
        expected = metrics(repeated)
        assert {name: resampled[name][index] for name in METRICS} == pytest.approx(
            {name: float(expected[name]) for name in METRICS}, rel=1e-5, nan_ok=True
        )
    found = intervals(table)["refusal_score"]
    low, high = found["auroc"]
    assert low <= metrics_of(table)["refusal_score"]["auroc"] <= high
    assert found.keys() == set(METRICS)


def test_many_scores_in_intervals():
    """Grouping scores in resamples does not change their metrics visibly."""
    rng = np.random.default_rng(0)
    absent = rng.random(4000) < 0.5
    pairs = list(zip(np.clip(rng.normal(0.4 + 0.2 * absent, 0.2), 0, 1).tolist(), absent.tolist(), strict=True))
    table = PredictionTable(rows_of(pairs))
    once = table.refusal_scores["refusal_score"].resampler(np.arange(4000) // 2)(np.ones((1, 2000), np.float32))
    expected = metrics(pairs)
    assert {name: once[name][0] for name in METRICS} == pytest.approx(
        {name: float(expected[name]) for name in METRICS}, abs=2e-3
    )


def test_metrics_without_scores():
    found = metrics_of(PredictionTable(rows_of([(None, True), (None, False)])))["refusal_score"]
    assert found == dict.fromkeys(METRICS) | {"scored": 0, "threshold": 0.5, "best_threshold": None}
    assert metrics_of(PredictionTable(rows_of([(0.2, True)])))["refusal_score"]["auroc"] is None


@pytest.mark.parametrize(
    ("text", "before"),
    [
        ("<answer>1 to 2</answer>", "<answer>"),
        ("<answer>a</answer> <answer>b</answer> <answer>", "<answer>a</answer> <answer>"),
        ("<think></think><answer>1", "<think></think><answer>"),
        ("</answer><answer>1", "</answer><answer>"),
        ("no tag", None),
    ],
)
def test_answer_start(text, before):
    assert answer_start(text) == (None if before is None else len(before))


@pytest.fixture(scope="module", params=["tiny", str(ROOT / "tests/data/qwen2_5_vl")])
def tokenizer(request):
    from transformers import AutoTokenizer

    return (
        load_processor("tiny").tokenizer if request.param == "tiny" else AutoTokenizer.from_pretrained(request.param)
    )


@pytest.mark.parametrize("answer", ["No such moment.", "12.50 to 14.00", "yellow"])
def test_score_of_known_distribution(tokenizer, answer):
    """A model that continues every text with one answer, with probability 0.9, refuses if that answer does."""
    text = render_completion("It is <b>.", answer)
    sequence = tokenizer.encode(text)

    def next_logprobs(prompts, prefixes, token_ids):
        (prefix,) = prefixes
        right = sequence[len(prefix)] if prefix == sequence[: len(prefix)] else None
        return [[math.log(0.9 if token == right else 0.1 / len(tokenizer)) for token in token_ids]]

    (score,) = RefusalScorer(tokenizer).scores([None], [sequence], next_logprobs)
    if answer[0].isdigit():
        assert score < 0.1
    elif answer.startswith("No"):
        assert score > 0.9


def test_prefix_without_answer(tokenizer):
    scorer = RefusalScorer(tokenizer)
    ids = [*tokenizer.encode("<think>a"), tokenizer.eos_token_id]
    assert (tokenizer.decode(scorer.prefix(ids)) + ">").startswith("<think>a\n<answer>")
    assert scorer.scores([None], [ids], lambda prompts, prefixes, tokens: [None]) == [None]
