"""Outcomes of answers: a segment, a refusal, or unreadable times. Rewards and evaluation agree on each."""

import json
import time

import pytest

from helpers.answer_cases import OUTCOMES, SEGMENTS, UNREADABLE
from helpers.paths import ROOT
from helpers.predictions import prediction
from rarft.annotations.times import parse_segments
from rarft.answers import parse_answer
from rarft.completion import parse_completion, render_completion
from rarft.evaluation.outcomes import classify_outcome
from rarft.evaluation.scored_predictions import ScoredPrediction
from rarft.rewards import explain_correction_reward, refuse_giou_reward, refuse_iou_reward
from rarft.segments import temporal_iou

PUBLISHED = ROOT.parent / "shared" / "data" / "hi_vtg_charades.json"


@pytest.mark.parametrize("answer", OUTCOMES)
def test_outcome(answer):
    outcome, segments = parse_answer(answer)
    assert outcome == OUTCOMES[answer]
    assert (segments[0] if segments else None) == SEGMENTS.get(answer)
    completion = parse_completion(render_completion("t", answer))
    assert (completion.outcome, list(completion.segments)) == (outcome, segments)
    assert completion.refuses == (outcome == "refusal")
    assert completion.is_readable == (outcome in ("segment", "refusal"))


@pytest.mark.parametrize("task_type", ["answerable", "refusable"])
@pytest.mark.parametrize("answer", OUTCOMES)
def test_rewards_and_evaluation_agree(answer, task_type):
    truth = (10.0, 20.0) if task_type == "answerable" else None
    completion = render_completion("t", answer)
    scored = ScoredPrediction(prediction(task_type, completion, None))
    right = OUTCOMES[answer] == {"answerable": "segment", "refusable": "refusal"}[task_type]
    assert (scored.predicted_relevant == scored.relevant) is right
    segment = SEGMENTS.get(answer)
    iou = temporal_iou(segment, truth) if truth and segment else 0.0
    assert scored.ra_iou == (iou if truth else float(right))
    assert explain_correction_reward([completion], [task_type], [[]]) == [float(right)]
    logged = {}
    (refuse_iou,) = refuse_iou_reward([completion], [task_type], [truth], [30.0], log_metric=logged.__setitem__)
    (refuse_giou,) = refuse_giou_reward([completion], [task_type], [truth])
    assert (refuse_iou > 0) == (scored.ra_iou > 0)
    assert refuse_giou == 0 or right
    assert logged.get("refuse_iou/iou") == (iou if truth else None)
    assert logged["refuse_iou/unreadable"] == (OUTCOMES[answer] == "unreadable")
    assert (classify_outcome(scored)[0] == "unreadable") == (OUTCOMES[answer] == "unreadable")


@pytest.mark.parametrize("answer", UNREADABLE)
def test_fields_do_not_misread(answer):
    """A field reads some of these forms; where it does, the numbers are those that are meant."""
    meant = {
        "12.5s to 17.5s": (12.5, 17.5), "12.5 - 17.5": (12.5, 17.5), "12-17": (12, 17), "00:12 to 00:17": (12, 17),
        "0:05 to 10:20": (5, 620), "1:05:10 - 1:06:00": (3910, 3960), "12,5 to 17,5": (12.5, 17.5),
        "between 12.5 and 17.5 seconds": (12.5, 17.5), "[12.5, 17.5]": (12.5, 17.5),
        "1 to " + "2" * 33: (1, float("2" * 33)),
    }  # fmt: skip
    assert parse_segments(answer) == ([meant[answer]] if answer in meant else None)


def test_refusals_in_prose():
    refusals = (ROOT / "tests" / "data" / "refusals.txt").read_text().splitlines()
    assert {parse_answer(text)[0] for text in refusals} == {"refusal"}


@pytest.mark.skipif(not PUBLISHED.is_file(), reason="the published annotations are not in the repository")
def test_published_answers():
    queries = [query for item in json.loads(PUBLISHED.read_text()) for query in item["GRPO"]]
    outcomes = {(query["r"], parse_completion(query["a"]).outcome) for query in queries}
    assert outcomes == {(True, "segment"), (False, "refusal")}


@pytest.mark.parametrize(
    "unit",
    [
        "1", " ", "12.", "1 to ", "1-", "1 and ", "1,", "[1,", "12.5s ", "1<a>", "1 about ", "1:", "-1", "start 1 ",
        "start 1 end ", "one to ", "between one and ", "frames ",
    ],
)  # fmt: skip
def test_parse_answer_takes_linear_time(unit):
    """A linear scan takes a tenth of a second, a quadratic one takes minutes."""
    started = time.process_time()
    parse_answer(f"no {unit * (100_000 // len(unit))} no")
    assert time.process_time() - started < 5
