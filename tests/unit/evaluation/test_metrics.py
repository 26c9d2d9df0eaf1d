"""Metrics compared with values computed by hand, with sklearn, and with a second implementation."""

import math
import random

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support
from sklearn.preprocessing import MultiLabelBinarizer

from helpers.predictions import REFUSAL, prediction
from rarft.annotations.schema import CATEGORIES
from rarft.completion import render_completion
from rarft.errors import InputError
from rarft.evaluation.bootstrap import intervals, paired
from rarft.evaluation.gates import parse_gate
from rarft.evaluation.metrics import HEADLINE, PredictionTable, metrics_of, value_at

LABELS = sorted(CATEGORIES)
PATHS = list(HEADLINE.values())


def compute_metrics(predictions):
    return metrics_of(PredictionTable(predictions))


PREDICTIONS = [
    prediction("answerable", render_completion("t", "10 to 20"), "original"),  # IoU 1
    prediction("answerable", render_completion("t", "10 to 16"), "original"),  # IoU 0.6
    prediction("answerable", render_completion("t", "28 to 31"), "original"),  # IoU 0, and past the end of 30 s
    prediction("answerable", REFUSAL, "original"),  # refused, falsely
    prediction("answerable", "no tags at all", "original"),  # no answer: wrong
    prediction(
        "refusable",
        REFUSAL,
        "hard",
        "Attribute/AttributeValue",
        categories=["Attribute/AttributeValue"],
        refusal_similarity=0.8,
        correction_similarity=0.6,
    ),
    prediction(
        "refusable",
        REFUSAL,
        "easy",
        "Object/ObjectExistence",
        categories=["Attribute/AttributeValue", "Object/ObjectExistence"],
        refusal_similarity=0.4,
    ),
    prediction("refusable", render_completion("t", "1 to 2"), "hard", "Object/ObjectExistence", categories=[]),
    prediction("refusable", "<answer> </answer>", "easy", "Object/ObjectExistence", categories=[]),  # no answer
]


def test_metrics_computed_by_hand():
    metrics = compute_metrics(PREDICTIONS)
    assert metrics["samples"] == 9
    assert metrics["relevance"]["confusion"] == {"tp": 3, "fp": 2, "fn": 2, "tn": 2}
    expected = {
        "relevance.accuracy": 5 / 9,
        "relevance.relevant.precision": 3 / 5,
        "relevance.relevant.recall": 3 / 5,
        "relevance.relevant.f1": 3 / 5,
        "relevance.irrelevant.precision": 2 / 4,
        "relevance.irrelevant.recall": 2 / 4,
        "relevance.irrelevant.f1": 2 / 4,
        "relevance.f1_avg": 0.55,
        "ra_iou.mean": (1 + 0.6 + 1 + 1) / 9,
        "ra_iou.r_at_30": 4 / 9,
        "ra_iou.r_at_50": 4 / 9,
        "ra_iou.r_at_70": 3 / 9,
        "grounding.mean": 1.6 / 5,
        "grounding.r_at_50": 2 / 5,
        "refusal_similarity.all": 1.2 / 4,
        "refusal_similarity.true_negatives": 1.2 / 2,
        "correction_similarity.all": 0.6 / 4,
        "correction_similarity.true_negatives": 0.6 / 2,
        "rt_iou.all": (1 + 1 / 2) / 4,
        "rt_iou.true_negatives": (1 + 1 / 2) / 2,
        "rt_iou.labels.Object/ObjectExistence.recall": 1 / 3,
        "rt_iou.labels.Attribute/AttributeValue.precision": 1 / 2,
        "rt_iou.macro_f1": (2 / 4 + 2 / 3) / 2,  # existence: 1 hit, 1 predicted, 3 true
        "rt_iou.micro_f1": 2 * 2 / (3 + 4),
        "format_rate": 7 / 9,
        "answer_rate": 7 / 9,
        "out_of_range_rate": 1 / 4,
        "mean_length": (3 * 5 + 5 + 4 + 5 + 5 + 5 + 2) / 9,
        "rewards.total": 1.5,
    }
    assert {path: value_at(metrics, path) for path in expected} == pytest.approx(expected)
    hard, existence = metrics["by_difficulty"]["hard"], metrics["by_category"]["Object/ObjectExistence"]
    assert (hard["samples"], hard["relevance"]["accuracy"], hard["ra_iou"]["mean"]) == (2, 0.5, 0.5)
    assert (existence["samples"], existence["ra_iou"]["mean"]) == (3, pytest.approx(1 / 3))
    assert metrics["by_length"]["10 to 30 s"]["samples"] == 5
    assert metrics["by_position"]["middle"]["grounding"]["mean"] == pytest.approx(1.6 / 5)


def test_unreadable_answers_and_several_segments():
    true = [(10.0, 20.0), (25.0, 30.0)]
    rows = [
        prediction("answerable", render_completion("t", "10 to 20, 25 to 30"), None, segments=true),  # IoU 1
        prediction("answerable", render_completion("t", "10 to 20"), None, segments=true),  # 10 / 15
        prediction("answerable", render_completion("t", "10s - 20s"), None, segments=true),  # unreadable
        prediction("answerable", render_completion("t", "10 to 15, 15 to 20"), None),  # the first counts: 0.5
        prediction("answerable", render_completion("t", "00:10 to 00:20"), None),  # unreadable
        prediction("refusable", render_completion("t", "10s - 20s"), None),  # unreadable
        prediction("refusable", render_completion("t", "There are 2 people, not 3."), None),
    ]
    metrics = compute_metrics(rows)
    expected = {
        "grounding.mean": 0.5 / 2,
        "grounding.r_at_50": 1 / 2,
        "multi_grounding.mean": (1 + 10 / 15) / 3,
        "multi_grounding.r_at_50": 2 / 3,
        "multi_grounding.r_at_70": 1 / 3,
        "ra_iou.mean": (1 + 10 / 15 + 0.5 + 1) / 7,
        "unreadable_rate": 3 / 7,
        "answer_rate": 1.0,
    }
    assert {path: value_at(metrics, path) for path in expected} == pytest.approx(expected)
    assert metrics["relevance"]["confusion"] == {"tp": 3, "fp": 1, "fn": 2, "tn": 1}
    assert intervals(PredictionTable(rows))["multi_grounding"]["mean"] is not None
    assert compute_metrics(rows[3:])["multi_grounding"]["mean"] is None


def test_metrics_of_empty_classes():
    metrics = compute_metrics(PREDICTIONS[:1])
    assert metrics["relevance"]["irrelevant"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert metrics["ra_iou"]["mean"] == 1.0
    assert metrics["rt_iou"]["all"] is None
    assert compute_metrics(PREDICTIONS[5:])["grounding"]["mean"] is None


@st.composite
def tables(draw):
    rows = []
    for number in range(draw(st.integers(2, 60))):
        start = draw(st.integers(0, 20))
        answer = draw(
            st.sampled_from(["no such moment", "", None, f"{start} to {start + 5}", f"{start + 5} to {start}"])
        )
        completion = "nothing" if answer is None else render_completion("t", answer)
        categories = draw(st.sets(st.sampled_from(LABELS[:4]), max_size=2))
        predicted = draw(st.sets(st.sampled_from(LABELS[:4]), max_size=2))
        kind = draw(st.sampled_from(["answerable", "refusable"]))
        found = {"categories": sorted(predicted)} if kind == "refusable" else {}
        rows.append(prediction(kind, completion, "easy", sorted(categories), video=f"{number % 7}", **found))
    return rows


@settings(deadline=None, max_examples=25)
@given(tables())
def test_metrics_equal_sklearn_and_second_implementation(rows):
    metrics = compute_metrics(rows)
    true, predicted, ra_ious = [], [], []
    for row in rows:
        relevant = row.sample.task_type == "answerable"
        answer = row.completion.partition("<answer>")[2].partition("</answer>")[0].strip()
        predicted_relevant = not relevant if not answer else " to " in answer
        true.append(int(relevant))
        predicted.append(int(predicted_relevant))
        iou = 0.0
        if relevant and predicted_relevant:
            a, b = (float(part) for part in answer.split(" to "))
            if b > a:
                shared = max(0.0, min(b, 20.0) - max(a, 10.0))
                iou = shared / ((b - a) + 10.0 - shared)
        ra_ious.append(iou if relevant else float(not predicted_relevant))
    precision, recall, f1, _ = precision_recall_fscore_support(true, predicted, labels=[1, 0], zero_division=0)
    for index, name in enumerate(("relevant", "irrelevant")):
        expected = {"precision": precision[index], "recall": recall[index], "f1": f1[index]}
        assert metrics["relevance"][name] == pytest.approx(expected)
    tn, fp, fn, tp = confusion_matrix(true, predicted, labels=[0, 1]).ravel()
    assert metrics["relevance"]["confusion"] == {"tp": tp, "fp": fp, "fn": fn, "tn": tn}
    assert metrics["ra_iou"]["mean"] == pytest.approx(np.mean(ra_ious))
    for name, threshold in (("r_at_30", 0.3), ("r_at_50", 0.5), ("r_at_70", 0.7)):
        assert metrics["ra_iou"][name] == pytest.approx(np.mean([iou >= threshold for iou in ra_ious]))
    refusable = [index for index, relevant in enumerate(true) if not relevant]
    sets = [
        (set(rows[index].sample.categories), set(rows[index].categories) if not predicted[index] else set())
        for index in refusable
    ]
    if any(one or other for one, other in sets):
        binarizer = MultiLabelBinarizer(classes=LABELS)
        y_true, y_predicted = binarizer.fit_transform([t for t, _ in sets]), binarizer.transform([s for _, s in sets])
        present = [index for index in range(len(LABELS)) if y_true[:, index].any() or y_predicted[:, index].any()]
        # Label by label: a table of one label alone sklearn takes for one of two classes.
        macro = np.mean([f1_score(y_true[:, index], y_predicted[:, index], zero_division=0) for index in present])
        micro = f1_score(y_true[:, present].ravel(), y_predicted[:, present].ravel(), zero_division=0)
        assert metrics["rt_iou"]["macro_f1"] == pytest.approx(macro)
        assert metrics["rt_iou"]["micro_f1"] == pytest.approx(micro)


def independent(number, right, seed):
    """Return refusable queries, one per video, refused with probability `right`."""
    rng = random.Random(seed)
    return [
        prediction(
            "refusable",
            REFUSAL if rng.random() < right else render_completion("t", "1 to 2"),
            "easy",
            video=str(index),
        )
        for index in range(number)
    ]


def test_intervals_equal_normal_approximation():
    rows = independent(1000, 0.7, seed=1)
    accuracy = compute_metrics(rows)["relevance"]["accuracy"]
    low, high = intervals(PredictionTable(rows))["relevance"]["accuracy"]
    half = 1.96 * math.sqrt(accuracy * (1 - accuracy) / 1000)
    assert (low, high) == pytest.approx((accuracy - half, accuracy + half), abs=0.004)
    assert intervals(PredictionTable(rows))["by_difficulty"]["easy"]["relevance"]["accuracy"] == [low, high]


def test_intervals_resample_videos():
    separate = [prediction("refusable", text, "easy", video=str(n)) for n, text in enumerate([REFUSAL, ""] * 50)]
    shared = [prediction("refusable", text, "easy", video=str(n % 4)) for n, text in enumerate([REFUSAL, ""] * 50)]
    width = {
        name: np.diff(intervals(PredictionTable(rows))["relevance"]["accuracy"])[0]
        for name, rows in (("separate", separate), ("shared", shared))
    }
    assert width["shared"] > 3 * width["separate"]


def test_intervals_ignore_resamples_without_the_class():
    rows = [
        *(prediction("refusable", REFUSAL, "easy", video=f"r{n}") for n in range(3)),
        *(prediction("answerable", render_completion("t", "10 to 20"), "original", video=f"a{n}") for n in range(30)),
    ]
    found = intervals(PredictionTable(rows))
    assert found["relevance"]["irrelevant"] == {"precision": [1.0, 1.0], "recall": [1.0, 1.0], "f1": [1.0, 1.0]}
    assert found["by_difficulty"]["easy"]["relevance"]["accuracy"] == [1.0, 1.0]


def test_paired_comparison():
    base, better = independent(300, 0.5, seed=2), independent(300, 0.7, seed=3)
    path = "relevance.accuracy"
    found = paired(PredictionTable(better), PredictionTable(base), [path])[path]
    assert found["p"] < 0.01
    assert found["interval"][0] > 0
    assert found["difference"] == pytest.approx(
        compute_metrics(better)["relevance"]["accuracy"] - compute_metrics(base)["relevance"]["accuracy"]
    )
    same = paired(PredictionTable(base), PredictionTable(base), PATHS)
    assert same[path] == {"difference": 0.0, "interval": [0.0, 0.0], "p": 1.0}
    assert same["grounding.mean"] is None  # no relevant query


def test_paired_comparison_leaves_out_skipped():
    rows, base = independent(40, 0.7, seed=2), independent(40, 0.5, seed=3)
    skips = [
        msgspec.structs.replace(row, completion="", skipped="x") if i % 7 == 0 else row for i, row in enumerate(rows)
    ]
    base_skips = [
        msgspec.structs.replace(row, completion="", skipped="x") if i % 5 == 0 else row for i, row in enumerate(base)
    ]
    kept = [i for i in range(40) if i % 7 and i % 5]
    expected = paired(PredictionTable([rows[i] for i in kept]), PredictionTable([base[i] for i in kept]), PATHS)
    assert paired(PredictionTable(skips), PredictionTable(base_skips), PATHS) == expected
    assert paired(PredictionTable(skips[:1]), PredictionTable(base_skips[:1]), PATHS) == dict.fromkeys(PATHS)


METRICS = compute_metrics(PREDICTIONS)
WITH_BASE = {**METRICS, "base": compute_metrics(PREDICTIONS[:2])}


@pytest.mark.parametrize(
    ("gate", "reason"),
    [
        ("relevance.f1_avg>=0.55", None),
        ("relevance.f1_avg > 0.55", "relevance.f1_avg > 0.55: value 0.5500"),
        ("out_of_range_rate<=.25", None),
        ("format_rate<0.5", "format_rate<0.5: value 0.7778"),
        ("ra_iou.mean>=base", "ra_iou.mean>=base: value 0.4000, bound 0.8000"),
        ("ra_iou.mean>=base-0.41", None),
        ("ra_iou.mean >= base + 0.1", "ra_iou.mean >= base + 0.1: value 0.4000, bound 0.9000"),
        ("consistency>=3", "consistency>=3: metric not available"),
        ("by_difficulty.hard.ra_iou.mean>=0.5", None),
        ("by_length.10 to 30 s.samples>=6", "by_length.10 to 30 s.samples>=6: value 5.0000"),
        ("by_category.Object/ObjectExistence.relevance.accuracy>=3e-1", None),
        (
            "rt_iou.labels.Object/ObjectExistence.f1 >= 1.",
            "rt_iou.labels.Object/ObjectExistence.f1 >= 1.: value 0.5000",
        ),
        (
            "by_difficulty.medium.ra_iou.mean>=0.5",
            "by_difficulty.medium.ra_iou.mean>=0.5: metric not available",
        ),
        ("rewards.format>=base", None),
    ],
)
def test_gate_failure_reason(gate, reason):
    assert parse_gate(gate).failure_reason(WITH_BASE) == reason


@pytest.mark.parametrize(
    ("gate", "message"),
    [
        ("relevance.f1>=0.7", "unknown metric relevance.f1"),
        ("relevance>=0.7", "unknown metric relevance"),
        ("by_difficulty.hard.iou>=0.7", "unknown metric by_difficulty.hard.iou"),
        ("ra_iou.mean=0.7", "write METRIC>=NUMBER"),
        ("ra_iou.mean>=", "write METRIC>=NUMBER"),
        ("ra_iou.mean>=base 0.1", "write base"),
        ("ra_iou.mean>=base", "needs a base"),
    ],
)
def test_parse_gate_rejects(gate, message):
    with pytest.raises(InputError, match=message):
        parse_gate(gate, with_base=message != "needs a base")
