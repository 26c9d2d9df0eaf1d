"""What becomes of one item's queries, trouble by trouble."""

import time

import pytest

from helpers.annotation_cases import CASES
from helpers.paths import ROOT
from helpers.riq_items import ANSWERABLE, REFUSABLE, item, query
from rarft.annotations.findings import CHECK_OF_CODE, REPAIRS, catalogue_page
from rarft.annotations.validate import ValidationSettings, validate


def test_a_clean_item_becomes_two_rows(check):
    report, rows, _ = check([item(think="<timestep>1.0 to 4.0</timestep> a dog runs.", note="kept")])
    assert report["counts"] == {"items": 1, "queries": 2, "accepted": 2, "repaired": 0, "quarantined": 0}
    assert report["findings"] == []
    answerable, refusable = rows
    assert answerable == {
        "id": answerable["id"],
        "video": "v.mp4",
        "query": "a dog runs",
        "task_type": "answerable",
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
    }
    assert refusable["segment"] is None
    assert refusable["gt_answer"] == "There is no cat."
    assert refusable["contrast_answer"] == "1.0 to 4.0"
    assert refusable["categories"] == ["Object/ObjectExistence"]


@pytest.mark.parametrize("name", CASES)
def test_each_trouble_ends_accepted_repaired_or_quarantined(check, name):
    trouble, fates, codes = CASES[name]
    report, rows, quarantine = check([trouble])
    survived = {row["source"]["query"] for row in rows}
    assert [index in survived for index in range(2)] == [fate != "Q" for fate in fates]
    assert (report["counts"]["accepted"], report["counts"]["repaired"]) == (fates.count("A"), fates.count("R"))
    assert sorted(finding["code"] for finding in report["findings"]) == sorted(codes)
    for row in quarantine:
        assert len(row["GRPO"]) == 1
        assert any(finding["severity"] == "error" for finding in row["_findings"])


@pytest.mark.parametrize("trouble", [5, None, "text", [], {}, {"video": "v.mp4"}, {"GRPO": "q"}, {"GRPO": []}])
def test_what_is_no_item_is_quarantined_as_one_query(check, trouble):
    report, _, quarantine = check([trouble, item()])
    assert report["counts"] == {"items": 2, "queries": 3, "accepted": 2, "repaired": 0, "quarantined": 1}
    assert report["reasons"] == {"not-an-item": 1}
    assert len(quarantine) == 1


def test_one_timestamp_belongs_to_the_query_that_equals_query_text(check):
    other = query(ANSWERABLE, q="a dog sits")
    report, rows, _ = check([item(GRPO=[other, ANSWERABLE, REFUSABLE])])
    assert [row["query"] for row in rows] == ["a dog runs", "a cat runs"]
    assert report["reasons"] == {"segment-of-another": 1}
    assert rows[1]["reference_queries"] == ["a dog sits", "a dog runs"]


@pytest.mark.parametrize(
    ("word", "level"), [("weak", "easy"), ("moderate", "medium"), ("strong", "hard"), ("Hard", "hard")]
)
@pytest.mark.parametrize("key", ["difficulty", "irrelevance_level", "hardness_level"])
def test_one_difficulty_vocabulary(check, word, level, key):
    _, rows, _ = check([item(GRPO=[ANSWERABLE, {**query(REFUSABLE, difficulty=...), key: word}])])
    assert rows[1]["difficulty"] == level


# repair: (an item that it mends, the answerable and the refusable query's fates without it, code)
REPAIRS_OFF = {
    "clamp": (item(timestamp=[1.0, 10.9]), "QA", "RIQ102"),
    "fill-answer": (item(GRPO=[query(ANSWERABLE, a=""), REFUSABLE]), "QA", "RIQ303"),
    "wrap-answer": (item(GRPO=[ANSWERABLE, query(REFUSABLE, a="no cat")]), "AQ", "RIQ304"),
    "correct-tag": (CASES["correct tag"][0], "AQ", "RIQ305"),
    "difficulty-names": (item(GRPO=[ANSWERABLE, query(REFUSABLE, difficulty="strong")]), "AA", "RIQ402"),
}


@pytest.mark.parametrize("repair", REPAIRS_OFF)
def test_a_repair_that_is_turned_off_is_not_made(check, repair):
    trouble, fates, code = REPAIRS_OFF[repair]
    report, rows, _ = check([trouble], repairs=frozenset(REPAIRS) - {repair})
    survived = {row["source"]["query"] for row in rows}
    assert [index in survived for index in range(2)] == [fate != "Q" for fate in fates]
    assert report["counts"]["repaired"] == 0
    assert [finding["code"] for finding in report["findings"]] == [code]


def test_the_catalogue_in_the_docs_is_current():
    page = ROOT / "docs" / "checks.md"
    assert page.read_text() == catalogue_page(), "run `python -m rarft.annotations.findings > docs/checks.md`"


def test_every_check_is_in_a_table_or_has_a_test_of_its_own():
    in_tables = {code for _, _, codes in CASES.values() for code in codes}
    of_their_own = {
        "broken-line",
        "not-an-item",
        "duplicate",
        "video-leaks",
        "duration-filled",
        "video-not-found",
        "video-unreadable",
        "video-length-differs",
        "video-rerooted",
        "video-too-short",
        "video-ambiguous",
    }
    assert {check.name for check in CHECK_OF_CODE.values() if check.code not in in_tables} == of_their_own


def test_fields_of_item_and_query_are_both_kept(check):
    _, rows, _ = check([item(PRO=1, other=2, GRPO=[query(ANSWERABLE, PRO=3), REFUSABLE])])
    assert [row["extra"] for row in rows] == [{"item.PRO": 1, "other": 2, "PRO": 3}, {"PRO": 1, "other": 2}]


@pytest.mark.parametrize("unit", ["<answer>", "<timestep>", "<correct>", "<correction>", "<answer></answer>"])
def test_time_is_linear_in_the_length_of_a_text(check, unit):
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    check([item(think=text, GRPO=[ANSWERABLE, query(REFUSABLE, a=text)])])
    assert time.process_time() - started < 20


def test_validating_the_output_again_gives_the_same_bytes(check, tmp_path):
    check([trouble for trouble, _, _ in CASES.values()])
    first = (tmp_path / "out" / "riq.jsonl").read_bytes()
    again = tmp_path / "again"
    report = validate(tmp_path / "out" / "riq.jsonl", again, None, ValidationSettings(probe_videos=False))
    assert (again / "riq.jsonl").read_bytes() == first
    assert report["counts"]["quarantined"] == 0
