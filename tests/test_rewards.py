import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rarft.response import parse, render
from rarft.rewards import explain_correction_reward, format_reward, refuse_iou_reward
from rarft.rewards.explain_correction import ExplainCorrection
from rarft.rewards.refuse_iou import refuse_iou
from rarft.segments import temporal_iou


class FixedSimilarity:
    """Every text is this similar to every reference."""

    def __init__(self, value):
        self.value = value

    def best_similarities(self, pairs):
        return [self.value for _ in pairs]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((22, 38), (20, 40), 0.8),
        ((0, 10), (0, 10), 1.0),
        ((0, 5), (5, 10), 0.0),
        ((0, 1), (8, 9), 0.0),
        ((0, 6), (4, 10), 0.2),
        ((6, 0), (4, 10), 0.0),
        ((5, 5), (4, 10), 0.0),
        ((float("nan"), 5), (4, 10), 0.0),
        ((0, float("inf")), (4, 10), 0.0),
    ],
)
def test_temporal_iou(a, b, expected):
    assert temporal_iou(a, b) == pytest.approx(expected)
    assert temporal_iou(b, a) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "task_type", "expected"),
    [
        ("22 to 38", "answerable", 0.76832),  # 16/20 * 0.98 * 0.98
        ("20 to 40", "answerable", 1.0),
        ("no such moment", "answerable", 0.0),
        ("", "answerable", 0.0),
        ("38 to 22", "answerable", 0.0),
        ("22 to 38", "refusable", 0.0),
        ("no such moment", "refusable", 1.0),
        ("", "refusable", 0.0),
    ],
)
def test_refuse_iou_follows_the_logic_table(answer, task_type, expected):
    solution = (20.0, 40.0) if task_type == "answerable" else None
    rewards = refuse_iou_reward([render("t", answer)], [task_type], [solution], [100.0])
    assert rewards == pytest.approx([expected])


@pytest.mark.parametrize(
    ("answer", "correction", "task_type", "references", "expected"),
    [
        ("no such moment", "a person is cooking pasta", "refusable", ["r"], 1.35),
        ("no such moment", "NIL", "refusable", ["r"], 1.0),
        ("no such moment", "", "refusable", ["r"], 1.0),
        ("no such moment", "a person is cooking pasta", "refusable", [], 1.0),
        ("1 to 2", "a person is cooking pasta", "refusable", ["r"], 0.35),
        ("1 to 2", "a person is cooking pasta", "answerable", ["r"], 1.0),
        ("no such moment", "NIL", "answerable", ["r"], 0.0),
        ("", "NIL", "refusable", ["r"], 0.0),
    ],
)
def test_explain_correction_given_a_similarity_of_085(answer, correction, task_type, references, expected):
    reward = ExplainCorrection(FixedSimilarity(0.85))
    assert reward([render("t", answer, correction)], [task_type], [references]) == pytest.approx([expected])


def test_explain_correction_with_the_real_encoder():
    completion = render("t", "no such moment", "a person is cooking pasta")
    rewards = explain_correction_reward([completion], ["refusable"], [["a person is cooking in the kitchen"]])
    assert rewards == pytest.approx([1.165], abs=1e-3)


def test_conversational_and_plain_completions_score_alike():
    text = render("t", "1 to 2")
    assert format_reward([text, [{"role": "assistant", "content": text}], "x"]) == [1.0, 1.0, 0.0]


segments = st.tuples(st.floats(0, 1e6), st.floats(0, 1e6))
numbers = st.one_of(st.floats(allow_nan=True).map(str), st.integers(-(10**40), 10**40).map(str), st.text(max_size=8))


@given(st.tuples(numbers, numbers).map(" to ".join), segments, st.floats(1e-3, 1e6))
def test_refuse_iou_is_always_in_range(answer, solution, duration):
    for task_type, truth in (("answerable", solution), ("refusable", None)):
        score = refuse_iou(parse(render("t", answer)), task_type, truth, duration)
        assert math.isfinite(score)
        assert 0.0 <= score <= 1.0


@given(st.text(), st.sampled_from(["answerable", "refusable"]), st.floats(-1, 1))
def test_explain_correction_is_always_in_range(text, task_type, similarity):
    reward = ExplainCorrection(FixedSimilarity(similarity))
    (score,) = reward([f"<answer>{text}</answer><correction>{text}</correction>"], [task_type], [["r"]])
    assert 0.0 <= score <= (1.5 if task_type == "refusable" else 1.0)
