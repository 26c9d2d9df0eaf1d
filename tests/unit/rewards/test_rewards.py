"""Built-in rewards against tables of their definitions, and rewards of users."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.predictions import prediction
from rarft.completion import render_completion
from rarft.errors import InputError
from rarft.evaluation.scored_predictions import ScoredPrediction
from rarft.rewards import explain_correction_reward, format_reward, refuse_giou_reward, refuse_iou_reward
from rarft.rewards.contrastive import ExplainCorrectionContrastive
from rarft.rewards.explain_correction import ExplainCorrection
from rarft.rewards.registry import resolve_rewards
from rarft.segments import generalized_iou, temporal_iou, union_iou


class FixedSimilarity:
    """One similarity for every pair."""

    def __init__(self, value):
        self.value = value

    def similarities(self, pairs):
        return [[self.value] * len(candidates) for _, candidates in pairs]


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


segment_lists = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=5)


@given(segment_lists, segment_lists)
def test_union_iou_equals_counting(a, b):
    """With whole seconds, the measure of a union is the number of the seconds in it."""
    seconds = [{second for start, end in one for second in range(start, end)} for one in (a, b)]
    union = len(seconds[0] | seconds[1])
    expected = len(seconds[0] & seconds[1]) / union if all(seconds) else 0.0
    assert union_iou(a, b) == pytest.approx(expected)
    if len(a) == len(b) == 1:
        assert union_iou(a, b) == temporal_iou(a[0], b[0])


@pytest.mark.parametrize(
    ("answer", "iou", "accuracies"),
    [
        ("10 to 20, 40 to 50", 1.0, (1.0, 1.0)),
        ("40 to 50 and 10 to 20", 1.0, (1.0, 1.0)),
        ("10 to 20", 0.5, (1.0, 0.7)),
        ("10 to 50", 0.5, (1.0, 1.0)),
        ("10 to 20, 30 to 40", 1 / 3, (1.0, 0.9)),
        ("20 to 10, 40 to 50", 0.5, (0.7, 1.0)),  # a reversed segment does not count
        ("12-20, 40-50", 0.0, (0.0, 0.0)),
        ("no such moment", 0.0, (0.0, 0.0)),
    ],
)
def test_several_segments(answer, iou, accuracies):
    """The IoU is that of the unions, and the accuracies are those of the outer bounds."""
    completion, true = render_completion("t", answer), [(10.0, 20.0), (40.0, 50.0)]
    logged = {}
    columns = {"task_type": ["answerable"], "solution": [None], "solutions": [true]}
    reward = refuse_iou_reward([completion], durations=[100.0], log_metric=logged.__setitem__, **columns)
    assert reward == pytest.approx([iou * accuracies[0] * accuracies[1]])
    assert logged["refuse_iou/iou"] == pytest.approx(iou)
    scored = ScoredPrediction(prediction("answerable", completion, None, segments=true))
    assert scored.iou == scored.ra_iou == pytest.approx(iou)
    (giou,) = refuse_giou_reward([completion], **columns)
    assert giou == pytest.approx((1 + iou) / 2 if iou else 0.0)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ((22, 38), (20, 40), 0.8),
        ((0, 6), (4, 10), 0.2),
        ((0, 5), (5, 10), 0.0),
        ((0, 1), (3, 4), -0.5),
        ((0, 1), (98, 99), -97 / 99),
        ((-1e308, -9e307), (9e307, 1e308), -1.0),  # the sum of the lengths is infinite
        ((6, 0), (4, 10), -1.0),
    ],
)
def test_generalized_iou(a, b, expected):
    assert generalized_iou([a], [b]) == pytest.approx(expected)
    assert generalized_iou([b], [a]) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "task_type", "expected"),
    [
        ("22 to 38", "answerable", 0.9),
        ("50 to 60", "answerable", 0.375),
        ("70 to 80", "answerable", 0.25),
        ("no such moment", "answerable", 0.0),
        ("", "answerable", 0.0),
        ("38 to 22", "answerable", 0.0),
        ("22 to 38", "refusable", 0.0),
        ("no such moment", "refusable", 1.0),
        ("", "refusable", 0.0),
    ],
)
def test_refuse_giou_logic_table(answer, task_type, expected):
    solution = (20.0, 40.0) if task_type == "answerable" else None
    rewards = refuse_giou_reward([render_completion("t", answer)], [task_type], [solution])
    assert rewards == pytest.approx([expected])


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
        ("22s - 38s", "refusable", 0.0),
        ("22s - 38s", "answerable", 0.0),
    ],
)
def test_refuse_iou_logic_table(answer, task_type, expected):
    solution = (20.0, 40.0) if task_type == "answerable" else None
    rewards = refuse_iou_reward([render_completion("t", answer)], [task_type], [solution], [100.0])
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
def test_explain_correction_logic_table(answer, correction, task_type, references, expected):
    reward = ExplainCorrection(FixedSimilarity(0.85))
    assert reward([render_completion("t", answer, correction)], [task_type], [references]) == pytest.approx([expected])


def test_explain_correction_real_encoder():
    completion = render_completion("t", "no such moment", "a person is cooking pasta")
    rewards = explain_correction_reward([completion], ["refusable"], [["a person is cooking in the kitchen"]])
    assert rewards == pytest.approx([1.165], abs=1e-3)


def test_conversational_completions():
    text = render_completion("t", "1 to 2")
    assert format_reward([text, [{"role": "assistant", "content": text}], "x"]) == [1.0, 1.0, 0.0]


class TableSimilarity:
    """Similarities by (text, candidate); 0 for every other pair."""

    def __init__(self, table):
        self.table = table

    def similarities(self, pairs):
        return [[self.table.get((text, candidate), 0.0) for candidate in candidates] for text, candidates in pairs]


@pytest.mark.parametrize(
    ("correction", "baseline", "expected"),
    [
        ("a dog runs", "none", 1 + 0.9 - 0.5),
        ("a dog runs", "query", 1 + 0.9 - 0.7),
        ("a cat runs", "none", 1 + 0.7 - 0.5),  # echoing the refused query earns a bonus
        ("a cat runs", "query", 1.0),  # and none here
        ("a bird", "query", 1.0),
    ],
)
def test_explain_correction_query_baseline(correction, baseline, expected):
    table = {("a dog runs", "r1"): 0.9, ("a cat runs", "r1"): 0.7, ("a cat runs", "r2"): 0.3, ("a bird", "r1"): 0.6}
    reward = ExplainCorrection(TableSimilarity(table), baseline)
    columns = {"task_type": ["refusable"], "reference_queries": [["r1", "r2"]], "query": ["a cat runs"]}
    assert reward([render_completion("t", "no such moment", correction)], **columns) == pytest.approx([expected])


@pytest.mark.parametrize(
    ("answer", "correction", "kind", "contrast", "expected"),
    [
        ("1 to 2", "NIL", "answerable", "none there", (0.8 - 0.2) / 2 + 1),
        ("1 to 2", "a dog runs", "answerable", "none there", (0.8 - 0.2) / 2),
        ("1 to 2", "NIL", "answerable", None, 0.8 / 2 + 1),
        ("", "NIL", "answerable", "none there", 1.0),
        ("1s - 2s", "NIL", "answerable", "none there", 1.0),
        ("no cat", "a dog runs", "refusable", "1 to 2", (0.9 - 0.1) / 2 + (0.5 + 1) / 2),
        ("no cat", "NIL", "refusable", "1 to 2", (0.9 - 0.1) / 2),
        ("no cat", "", "refusable", "1 to 2", (0.9 - 0.1) / 2),
    ],
)
def test_contrastive_formula(answer, correction, kind, contrast, expected):
    table = {
        ("1 to 2", "own"): 0.8, ("1 to 2", "none there"): 0.2, ("no cat", "own"): 0.9, ("no cat", "1 to 2"): 0.1,
        ("a dog runs", "the dog"): 0.5,
    }  # fmt: skip
    reward = ExplainCorrectionContrastive(TableSimilarity(table))
    scores = reward(
        [render_completion("t", answer, correction)], [kind], ["own"], [contrast], [["the dog", "another"]]
    )
    assert scores == pytest.approx([expected])


def test_contrastive_without_ground_truth():
    """A query without a ground-truth answer is left out, and only that one."""
    reward = ExplainCorrectionContrastive(FixedSimilarity(0.5))
    completions = [render_completion("t", "no cat")] * 2
    assert reward(completions, ["refusable"] * 2, ["", "no cat"], [None] * 2, [[]] * 2) == [None, 0.25]
    assert ExplainCorrection(FixedSimilarity(0.5))(completions, ["refusable"] * 2, [[]] * 2) == [1.0, 1.0]


def test_logged_terms():
    logged = {}
    completions = [render_completion("t", "22 to 38"), render_completion("t", "no such moment", "a dog")]
    columns = {
        "task_type": ["answerable", "refusable"], "solution": [(20.0, 40.0), None], "durations": [100.0, 100.0],
        "reference_queries": [["r"], ["r"]], "log_metric": logged.__setitem__,
    }  # fmt: skip
    refuse_iou_reward(completions, **columns)
    ExplainCorrection(FixedSimilarity(0.85))(completions, **columns)
    assert logged == pytest.approx(
        {
            "refuse_iou/unreadable": 0.0,
            "refuse_iou/iou": 0.8,
            "refuse_iou/start_accuracy": 0.98,
            "refuse_iou/end_accuracy": 0.98,
            "explain_correction/refusal_score": 1.0,
            "explain_correction/best_similarity": 0.85,
            "explain_correction/correction_bonus": 0.35,
        }
    )


OWN_REWARDS = """
import math

def fine(completions, **columns): return [len(text) / 10 for text in completions]
def none(completions, **columns): return [None for _ in completions]
def short(completions, **columns): return [0.0]
def nan(completions, **columns): return [math.nan for _ in completions]
def words(completions, **columns): return ["good" for _ in completions]
def fails(completions, **columns): return [1 / 0]
number = 5
"""


@pytest.fixture
def own_file(tmp_path):
    (tmp_path / "own.py").write_text(OWN_REWARDS)
    return tmp_path / "own.py"


def test_resolve_rewards_file_and_module(own_file, monkeypatch):
    from_file, from_module = resolve_rewards(
        [f"{own_file}:fine", "rarft.rewards.format:format_reward"], FixedSimilarity(1.0)
    )
    assert from_file(completions=["ab", "abc"]) == [0.2, 0.3]
    assert from_file.__name__ == "fine"
    assert from_module(completions=[render_completion("t", "1 to 2")]) == [1.0]
    (none,) = resolve_rewards([f"{own_file}:none"], FixedSimilarity(1.0))
    assert none(completions=["a"]) == [None]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_custom_reward", "no such reward; use format.*path/to/file.py:function"),
        ("OWN:nothing", "no function nothing in"),
        ("OWN:number", "no function number in"),
        ("missing.py:f", "no such file missing.py"),
        ("no.such.module:f", "cannot be imported"),
    ],
)
def test_resolve_rewards_invalid_name(own_file, name, message):
    with pytest.raises(InputError, match=message):
        resolve_rewards([name.replace("OWN", str(own_file))], FixedSimilarity(1.0))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("short", "returned 1 values for 2 completions"),
        ("nan", "returned nan for completion 0"),
        ("words", "failed with ValueError"),
        ("fails", "failed with ZeroDivisionError"),
    ],
)
def test_invalid_reward_values(own_file, name, message):
    (reward,) = resolve_rewards([f"{own_file}:{name}"], FixedSimilarity(1.0))
    with pytest.raises(InputError, match=f"own.py:{name}: {message}"):
        reward(completions=["a", "b"])
