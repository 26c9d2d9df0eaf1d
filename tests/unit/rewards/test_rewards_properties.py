"""For any completion and any data, rewards are finite and in range, and take linear time."""

import math
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rarft import rewards
from rarft.rewards.contrastive import ExplainCorrectionContrastive
from rarft.rewards.explain_correction import ExplainCorrection

FRAGMENTS = [
    "<think>", "</think>", "<answer>", "</answer>", "<correction>", "</correction>", " to ", "nan to inf", "NIL",
    "-5 to 3", "9 to 2", "1e9 to 2e9", "3.5 to 7.25", "0 to 0", "12 to", "\n", "a dog runs", "9" * 40, "٣ to ٥",
]  # fmt: skip

texts = st.one_of(
    st.text(),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=12).map("".join),
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=5)), max_size=6).map(
        lambda parts: (
            f"<think></think><answer>{''.join(parts)}</answer><correction>{''.join(parts[::-1])}</correction>"
        )
    ),
    st.tuples(st.sampled_from(FRAGMENTS), st.integers(1000, 5000)).map(lambda pair: pair[0] * pair[1]),
)
task_types = st.sampled_from(["answerable", "refusable"])


class AnySimilarity:
    """One similarity for every pair."""

    def __init__(self, value):
        self.value = value

    def similarities(self, pairs):
        return [[self.value] * len(candidates) for _, candidates in pairs]


@given(texts, task_types, st.lists(st.tuples(st.floats(), st.floats()), max_size=3), st.floats(), st.floats(-1, 1))
@example("<answer>nan to inf</answer>", "answerable", [(20.0, 40.0)], 100.0, 0.0)
@example("<answer>1 to 2</answer>", "answerable", [(math.nan, math.inf)], math.nan, 0.0)
@example("<answer>1 to 2</answer>", "answerable", [(1.0, 2.0)], 0.0, 0.0)
@example("<answer>1 to 2, 3 to 4</answer>", "answerable", [(-1e308, 1e308), (1.0, 2.0)], 1.0, 0.0)
@example("<answer>1 to 2</answer>", "answerable", [(-1e308, 1e308)], 1e-308, 0.0)
def test_rewards_are_finite_and_in_range(text, task_type, solutions, duration, similarity):
    store = AnySimilarity(similarity)
    columns = {
        "task_type": [task_type], "solution": [solutions[0] if solutions else None], "solutions": [solutions],
        "durations": [duration], "query": ["a cat runs"], "reference_queries": [["a dog runs"]], "gt_answers": ["no"],
        "contrast_answers": ["1 to 2"],
    }  # fmt: skip
    upper = 1.5 if task_type == "refusable" else 1.0
    for reward, low, high in (
        (rewards.format_reward, 0.0, 1.0),
        (rewards.refuse_iou_reward, 0.0, 1.0),
        (rewards.refuse_giou_reward, 0.0, 1.0),
        (ExplainCorrection(store), 0.0, upper),
        (ExplainCorrection(store, baseline="query"), 0.0, upper),
        (ExplainCorrectionContrastive(store), -1.0, 2.0),
    ):
        (score,) = reward([text], **columns)
        assert math.isfinite(score)
        assert low <= score <= high


@pytest.mark.parametrize("unit", ["1", "<think>", "<answer>", "</answer>", "1 to ", "12.", " ", "<correction>1 to 2"])
def test_rewards_take_linear_time(unit):
    body = unit * (100_000 // len(unit))
    completions = [body, f"<think></think><answer>{body}</answer><correction>{body}</correction>"]
    columns = {
        "task_type": ["refusable"] * 2, "solution": [None] * 2, "durations": [60.0] * 2, "query": ["a cat"] * 2,
        "reference_queries": [["a dog runs"]] * 2,
    }  # fmt: skip
    rewards.explain_correction_reward(["<answer>no</answer>"], ["refusable"], [["a dog"]])  # load the encoder
    started = time.process_time()
    for reward in (rewards.format_reward, rewards.refuse_iou_reward, rewards.explain_correction_reward):
        reward(completions, **columns)
    assert time.process_time() - started < 20.0  # 1 s if linear, minutes if quadratic
