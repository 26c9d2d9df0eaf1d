"""Outcomes and findings of single items."""

import hashlib
import time

import pytest

from helpers.annotation_cases import CASES, VIDEO_CASES
from helpers.paths import ROOT
from helpers.riq_items import ANSWERABLE, REFUSABLE, item, query
from rarft.annotations.checks import sample_id
from rarft.annotations.findings import CHECKS_BY_CODE, REPAIRS, catalog_page
from rarft.annotations.validate import ValidationSettings, validate
from rarft.storage.location import LocalFolder


def test_difficulties_are_counted_in_their_order(validate_items):
    names = ["hard", "original", "easy", "hard"]
    queries = [query(REFUSABLE, q=f"cat {number} runs", difficulty=name) for number, name in enumerate(names)]
    report, _, _ = validate_items([item(GRPO=queries)])
    assert list(report["statistics"]["difficulties"].items()) == [("easy", 1), ("hard", 2), ("original", 1)]


def test_valid_item(validate_items):
    report, rows, _ = validate_items([item(think="<timestep>1.0 to 4.0</timestep> a dog runs.", note="kept")])
    assert report["counts"] == {"items": 1, "queries": 2, "accepted": 2, "repaired": 0, "quarantined": 0}
    assert report["findings"] == []
    answerable, refusable = rows
    assert answerable == {
        "id": answerable["id"],
        "video": "v.mp4",
        "query": "a dog runs",
        "task_type": "answerable",
        "segments": [[1.0, 4.0]],
        "segment": [1.0, 4.0],
        "duration": 10.0,
        "crop": None,
        "gt_answer": "1.0 to 4.0",
        "contrast_answer": "There is no cat.",
        "reference_queries": ["a dog runs"],
        "categories": [],
        "difficulty": "original",
        "captions": [[1.0, 4.0, "a dog runs."]],
        "source": {"file": "in.json", "item": 0, "query": 0},
        "extra": {"note": "kept"},
        "video_file": None,
    }
    assert refusable["segment"] is None
    assert refusable["gt_answer"] == "There is no cat."
    assert refusable["contrast_answer"] == "1.0 to 4.0"
    assert refusable["categories"] == ["Object/ObjectExistence"]


def test_several_segments(validate_items):
    """They are sorted, an equal one is dropped, and a list of one is the same as a pair."""
    answer = query(ANSWERABLE, a="<answer>1 to 4, 6 to 8</answer>")
    report, (several, _), _ = validate_items([item(timestamp=[[6, 8], [1, 4], [6, 8]], GRPO=[answer, REFUSABLE])])
    assert (several["segments"], several["segment"]) == ([[1.0, 4.0], [6.0, 8.0]], None)
    assert report["findings"] == []
    _, (filled, _), _ = validate_items([item(timestamp=[[1, 4], [6, 8]], GRPO=[query(ANSWERABLE, a=""), REFUSABLE])])
    assert (filled["gt_answer"], filled["id"]) == ("1.00 to 4.00, 6.00 to 8.00", several["id"])
    rows = [validate_items([item(timestamp=timestamp)])[1] for timestamp in ([1, 4], [[1, 4]])]
    assert rows[0] == rows[1]


def test_sample_id_hashes_segments():
    parts = '["v.mp4","a dog runs","answerable",TIMES]'
    for segments, times in (
        ([(1.0, 4.0)], "[1.0,4.0]"),
        ([(1.0, 4.0), (6.0, 8.0)], "[[1.0,4.0],[6.0,8.0]]"),
        ([], "null"),
    ):
        expected = hashlib.sha256(parts.replace("TIMES", times).encode()).hexdigest()[:16]
        assert sample_id("videos/v.mp4", "a dog runs", "answerable", segments) == expected


@pytest.mark.parametrize("name", CASES)
def test_invalid_items(validate_items, name):
    invalid, outcomes, codes = CASES[name]
    report, rows, quarantine = validate_items([invalid])
    kept = {row["source"]["query"] for row in rows}
    assert [index in kept for index in range(2)] == [outcome != "Q" for outcome in outcomes]
    assert (report["counts"]["accepted"], report["counts"]["repaired"]) == (outcomes.count("A"), outcomes.count("R"))
    assert sorted(finding["code"] for finding in report["findings"]) == sorted(codes)
    for row in quarantine:
        assert len(row["GRPO"]) == 1
        assert any(finding["severity"] == "error" for finding in row["_findings"])


@pytest.mark.parametrize("value", [5, None, "text", [], {}, {"video": "v.mp4"}, {"GRPO": "q"}, {"GRPO": []}])
def test_non_items_count_as_one_query(validate_items, value):
    report, _, quarantine = validate_items([value, item()])
    assert report["counts"] == {"items": 2, "queries": 3, "accepted": 2, "repaired": 0, "quarantined": 1}
    assert report["reasons"] == {"invalid-item": 1}
    assert len(quarantine) == 1


def test_segment_belongs_to_query_text(validate_items):
    other = query(ANSWERABLE, q="a dog sits")
    report, rows, _ = validate_items([item(GRPO=[other, ANSWERABLE, REFUSABLE])])
    assert [row["query"] for row in rows] == ["a dog runs", "a cat runs"]
    assert report["reasons"] == {"segment-of-other-query": 1}
    assert rows[1]["reference_queries"] == ["a dog sits", "a dog runs"]


@pytest.mark.parametrize(
    ("word", "level"), [("weak", "easy"), ("moderate", "medium"), ("strong", "hard"), ("Hard", "hard")]
)
@pytest.mark.parametrize("key", ["difficulty", "irrelevance_level", "hardness_level"])
def test_difficulty_names(validate_items, word, level, key):
    _, rows, _ = validate_items([item(GRPO=[ANSWERABLE, {**query(REFUSABLE, difficulty=...), key: word}])])
    assert rows[1]["difficulty"] == level


# repair: (item that it fixes, outcomes of the answerable and the refusable query without it, code)
REPAIRS_OFF = {
    "clamp-segment": (item(timestamp=[1.0, 10.9]), "QA", "RIQ102"),
    "fill-answer": (item(GRPO=[query(ANSWERABLE, a=""), REFUSABLE]), "QA", "RIQ303"),
    "accept-untagged-answer": (item(GRPO=[ANSWERABLE, query(REFUSABLE, a="no cat")]), "AQ", "RIQ304"),
    "rename-correct-tag": (CASES["correct tag"][0], "AQ", "RIQ305"),
    "map-difficulty": (item(GRPO=[ANSWERABLE, query(REFUSABLE, difficulty="strong")]), "AA", "RIQ402"),
    "use-own-segment": (
        item(GRPO=[query(ANSWERABLE, q="a dog sits", a="<answer>6.0 to 9.0</answer>"), ANSWERABLE, REFUSABLE]),
        "QA",
        "RIQ107",
    ),
}


@pytest.mark.parametrize("repair", REPAIRS_OFF)
def test_repairs_can_be_turned_off(validate_items, repair):
    invalid, outcomes, code = REPAIRS_OFF[repair]
    report, rows, _ = validate_items([invalid], repairs=frozenset(REPAIRS) - {repair})
    kept = {row["source"]["query"] for row in rows}
    assert [index in kept for index in range(2)] == [outcome != "Q" for outcome in outcomes]
    assert report["counts"]["repaired"] == 0
    assert [finding["code"] for finding in report["findings"]] == [code]


def test_catalog_page_is_current():
    page = ROOT / "docs" / "checks.md"
    assert page.read_text() == catalog_page(), "run `python -m rarft.annotations.findings > docs/checks.md`"
    assert f"| {len(CHECKS_BY_CODE)} checks, " in (ROOT / "README.md").read_text()


def test_every_check_is_tested():
    """Checks that need a file or videos have their own tests, the others a case."""
    in_cases = {code for _, _, codes in CASES.values() for code in codes}
    in_cases |= {code for _, _, codes in VIDEO_CASES.values() for code in codes}
    assert {check.name for check in CHECKS_BY_CODE.values() if check.code not in in_cases} == {
        "malformed-line",
        "invalid-item",
        "duplicate",
        "crop-times-relative",
        "crop-is-file",
        "crop-times-unclear",
        "train-eval-video-overlap",
        "duration-filled",
        "video-not-found",
        "duration-mismatch",
        "video-found-by-name",
        "video-ambiguous",
    }


def test_extra_fields_of_item_and_query(validate_items):
    _, rows, _ = validate_items([item(PRO=1, other=2, GRPO=[query(ANSWERABLE, PRO=3), REFUSABLE])])
    assert [row["extra"] for row in rows] == [{"item.PRO": 1, "other": 2, "PRO": 3}, {"PRO": 1, "other": 2}]


@pytest.mark.parametrize("unit", ["<answer>", "<timestep>", "<correct>", "<correction>", "<answer></answer>"])
def test_time_is_linear_in_text_length(validate_items, unit):
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    validate_items([item(think=text, GRPO=[ANSWERABLE, query(REFUSABLE, a=text)])])
    assert time.process_time() - started < 20


def test_revalidation_writes_identical_output(validate_items, tmp_path):
    validate_items([invalid for invalid, _, _ in CASES.values()])
    first = (tmp_path / "out" / "riq.jsonl").read_bytes()
    again = tmp_path / "again"
    report = validate(tmp_path / "out" / "riq.jsonl", LocalFolder(again), None, ValidationSettings())
    assert (again / "riq.jsonl").read_bytes() == first
    assert report["counts"]["quarantined"] == 0
