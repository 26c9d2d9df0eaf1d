import pytest

from rarft.evaluation.metrics import compute_metrics, value_at
from rarft.evaluation.predictions import Prediction
from rarft.response import render
from rarft.riq.schema import Sample, Source

REFUSAL = render("t", "no such moment")


def prediction(task_type, completion, difficulty, category=None):
    answerable = task_type == "answerable"
    sample = Sample(
        id="i", video="v.mp4", query="q", task_type=task_type, segment=(10.0, 20.0) if answerable else None,
        duration=30.0, crop=None, gt_answer="a", contrast_answer=None, reference_queries=[],
        categories=[category] if category else [], difficulty=difficulty, captions=[],
        source=Source("f", 0, 0), extra={},
    )  # fmt: skip
    return Prediction(sample, completion, {"format": 1.0, "refuse_iou": 0.5})


PREDICTIONS = [
    prediction("answerable", render("t", "10 to 20"), "original"),  # IoU 1
    prediction("answerable", render("t", "10 to 16"), "original"),  # IoU 0.6
    prediction("answerable", render("t", "28 to 30"), "original"),  # IoU 0
    prediction("answerable", REFUSAL, "original"),  # refused, falsely
    prediction("answerable", "no tags at all", "original"),  # no answer: wrong
    prediction("refusable", REFUSAL, "hard", "Attribute/AttributeValue"),
    prediction("refusable", REFUSAL, "easy", "Object/ObjectExistence"),
    prediction("refusable", render("t", "1 to 2"), "hard", "Object/ObjectExistence"),
    prediction("refusable", "<answer> </answer>", "easy", "Object/ObjectExistence"),  # no answer: wrong
]


def test_against_figures_computed_by_hand():
    metrics = compute_metrics(PREDICTIONS)
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
        "format_rate": 7 / 9,
        "rewards.total": 1.5,
    }
    assert {path: value_at(metrics, path) for path in expected} == pytest.approx(expected)
    hard, existence = metrics["by_difficulty"]["hard"], metrics["by_category"]["Object/ObjectExistence"]
    assert (hard["samples"], hard["relevance"]["accuracy"], hard["ra_iou"]["mean"]) == (2, 0.5, 0.5)
    assert (existence["samples"], existence["ra_iou"]["mean"]) == (3, pytest.approx(1 / 3))
    assert metrics["by_length"]["10 to 30 s"]["samples"] == 5
    assert metrics["by_position"]["middle"]["grounding"]["mean"] == pytest.approx(1.6 / 5)


def test_no_prediction_of_a_class_is_zero_and_no_error():
    metrics = compute_metrics(PREDICTIONS[:1])
    assert metrics["relevance"]["irrelevant"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert metrics["ra_iou"]["mean"] == 1.0
