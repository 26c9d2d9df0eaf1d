import json
from pathlib import Path

import pytest

from rarft import steps
from rarft.errors import InputError
from rarft.riq.schema import read_samples
from rarft.riq.validate import ValidationSettings, validate

ANSWERABLE = {"q": "a dog runs", "a": "<answer>1.0 to 4.0</answer>", "r": True, "difficulty": "original"}
REFUSABLE = {
    "q": "a cat runs",
    "a": "<answer>There is no cat.</answer>",
    "r": False,
    "c": ["Object/ObjectExistence"],
    "difficulty": "hard",
}


def item(**changes):
    base = {"video": "v.mp4", "query_text": "a dog runs", "timestamp": [1.0, 4.0], "duration": 10.0}
    return {**base, "GRPO": [ANSWERABLE, REFUSABLE], **changes}


@pytest.fixture
def check(tmp_path):
    """Validate items without looking at videos; returns the report, the samples and the quarantine."""

    def run(items, **settings):
        source, out = tmp_path / "in.json", tmp_path / "out"
        source.write_text(items if isinstance(items, str) else json.dumps(items))
        report = validate(source, out, None, ValidationSettings(**{"probe_videos": False, **settings}))
        counts = report["counts"]
        assert counts["accepted"] + counts["repaired"] + counts["quarantined"] == counts["queries"]
        rows = [json.loads(line) for line in (out / "riq.jsonl").read_text().splitlines()]
        quarantine = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
        assert (len(rows), len(quarantine)) == (counts["accepted"] + counts["repaired"], counts["quarantined"])
        assert json.loads((out / "report.json").read_text()) == report
        return report, rows, quarantine

    return run


def query(base, **changes):
    return {key: value for key, value in {**base, **changes}.items() if value is not ...}


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


# name: (item, what becomes of its answerable and its refusable query, codes found)
# A accepted, R repaired, Q quarantined
TROUBLES = {
    "no duration": (item(duration=None), "AA", ["RIQ110"]),
    "past the end within tolerance": (item(timestamp=[1.0, 10.9]), "RA", ["RIQ102"]),
    "past the end": (item(timestamp=[1.0, 36.5]), "QA", ["RIQ101"]),
    "starts past the end": (item(timestamp=[10.1, 10.5]), "QA", ["RIQ101"]),
    "no segment for the answerable": (item(timestamp=[]), "QA", ["RIQ104"]),
    "answer blank": (item(GRPO=[query(ANSWERABLE, a=""), REFUSABLE]), "RA", ["RIQ303"]),
    "answer missing": (item(GRPO=[query(ANSWERABLE, a=...), REFUSABLE]), "RA", ["RIQ303"]),
    "answer untagged": (item(GRPO=[ANSWERABLE, query(REFUSABLE, a="no cat")]), "AR", ["RIQ304"]),
    "correct tag": (
        item(GRPO=[ANSWERABLE, query(REFUSABLE, a="<answer>no</answer><correct>a dog runs</correct>")]),
        "AR",
        ["RIQ305"],
    ),
    "answer rounded": (item(timestamp=[1.04, 4.04]), "AA", ["RIQ306"]),
    "refusal blank": (item(GRPO=[ANSWERABLE, query(REFUSABLE, a="<answer> </answer>")]), "AQ", ["RIQ302"]),
    "reversed": (item(timestamp=[4.0, 1.0]), "QA", ["RIQ103"]),
    "empty": (item(timestamp=[4.0, 4.0]), "QA", ["RIQ103"]),
    "negative": (item(timestamp=[-1.0, 4.0]), "QA", ["RIQ106"]),
    "not a number": (item(timestamp=[float("nan"), 4.0]), "QA", ["RIQ105"]),
    "three numbers": (item(timestamp=[1, 2, 3]), "QA", ["RIQ105"]),
    "words": (item(timestamp="soon"), "QA", ["RIQ105"]),
    "numbers as strings": (item(timestamp=["1.0", "4.0"], duration="10"), "AA", []),
    "duration negative": (item(duration=-3), "AA", ["RIQ110", "RIQ111"]),
    "crop reversed": (item(video_start=5, video_end=2), "AA", ["RIQ113"]),
    "no video": (item(video=None), "QQ", ["RIQ011"]),
    "query is a number": (item(GRPO=[query(ANSWERABLE, q=7), REFUSABLE]), "QA", ["RIQ011"]),
    "query missing": (item(GRPO=[query(ANSWERABLE, q=...), REFUSABLE]), "QA", ["RIQ011"]),
    "query blank": (item(GRPO=[ANSWERABLE, query(REFUSABLE, q=" ")]), "AQ", ["RIQ301"]),
    "r missing": (item(GRPO=[ANSWERABLE, query(REFUSABLE, r=...)]), "AQ", ["RIQ011"]),
    "r as a word": (item(GRPO=[query(ANSWERABLE, r="true"), query(REFUSABLE, r=0)]), "AA", []),
    "a query that is no object": (item(GRPO=[ANSWERABLE, "what?"]), "AQ", ["RIQ011"]),
    "unknown category": (item(GRPO=[ANSWERABLE, query(REFUSABLE, c=["Sound/Loud"])]), "AA", ["RIQ401"]),
    "unknown difficulty": (item(GRPO=[ANSWERABLE, query(REFUSABLE, difficulty="evil")]), "AA", ["RIQ402"]),
    "twice in an item": (item(GRPO=[ANSWERABLE, ANSWERABLE]), "AQ", ["RIQ107"]),
    "both ways": (item(GRPO=[ANSWERABLE, query(REFUSABLE, q="a dog runs")]), "QQ", ["RIQ502", "RIQ502"]),
}


@pytest.mark.parametrize("name", TROUBLES)
def test_each_trouble_ends_accepted_repaired_or_quarantined(check, name):
    trouble, fates, codes = TROUBLES[name]
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


def test_references_come_from_the_whole_file_and_the_own_item_first(check):
    second = item(query_text="a dog sits", GRPO=[query(ANSWERABLE, q="a dog sits"), query(REFUSABLE, q="a cat sits")])
    elsewhere = item(video="w.mp4", query_text="snow", GRPO=[query(ANSWERABLE, q="snow")])
    _, rows, _ = check([item(timestamp=[1.0, 99.0]), second, elsewhere])
    by_query = {row["query"]: row["reference_queries"] for row in rows}
    assert by_query["a cat runs"] == ["a dog runs", "a dog sits"]
    assert by_query["a cat sits"] == ["a dog sits", "a dog runs"]
    assert by_query["snow"] == ["snow"]


def test_duplicates_across_items(check):
    report, _, _ = check([item(), item()])
    assert report["reasons"] == {"duplicate": 2}


def test_a_quarantined_query_is_nobodys_original(check):
    blank = item(GRPO=[ANSWERABLE, query(REFUSABLE, a="")])
    report, rows, _ = check([blank, item(GRPO=[REFUSABLE])])
    assert report["reasons"] == {"refusal-empty": 1}
    assert [row["query"] for row in rows] == ["a dog runs", "a cat runs"]


@pytest.mark.parametrize(
    ("word", "level"), [("weak", "easy"), ("moderate", "medium"), ("strong", "hard"), ("Hard", "hard")]
)
@pytest.mark.parametrize("key", ["difficulty", "irrelevance_level", "hardness_level"])
def test_one_difficulty_vocabulary(check, word, level, key):
    _, rows, _ = check([item(GRPO=[ANSWERABLE, {**query(REFUSABLE, difficulty=...), key: word}])])
    assert rows[1]["difficulty"] == level


def test_validating_the_output_again_gives_the_same_bytes(check, tmp_path):
    check([trouble for trouble, _, _ in TROUBLES.values()])
    first = (tmp_path / "out" / "riq.jsonl").read_bytes()
    again = tmp_path / "again"
    report = validate(tmp_path / "out" / "riq.jsonl", again, None, ValidationSettings(probe_videos=False))
    assert (again / "riq.jsonl").read_bytes() == first
    assert report["counts"]["quarantined"] == 0


def test_a_mended_row_of_the_quarantine_is_accepted(check, tmp_path):
    check([item(timestamp=[1.0, 99.0])])
    (row,) = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    assert row["_reference_queries"] == ["a dog runs"]
    row["timestamp"] = [1.0, 9.0]
    report, rows, _ = check(json.dumps(row))
    assert report["counts"]["accepted"] == 1
    assert rows[0]["segment"] == [1.0, 9.0]


def test_videos_are_found_by_base_name_and_measured(sample_set, tmp_path):
    items = json.loads((sample_set / "train.json").read_text())
    items[0]["video"] = "/somebody/else/" + Path(items[0]["video"]).name
    items[1]["duration"] = None
    items[2]["duration"] += 5
    items[3]["video"] = "missing.mp4"
    (sample_set / "videos" / "broken.mp4").write_bytes(b"no video")
    items[4]["video"] = "videos/broken.mp4"
    source = tmp_path / "moved.json"
    source.write_text(json.dumps(items))
    report = steps.validate(str(source), str(tmp_path / "out"), str(sample_set))
    counts = report["counts"]
    assert (counts["accepted"], counts["repaired"], counts["quarantined"]) == (8, 4, 4)
    assert report["reasons"] == {"video-not-found": 2, "video-unreadable": 2}
    samples = read_samples(str(tmp_path / "out"), "data")
    assert all(Path(sample.video).is_file() for sample in samples)
    by_item = {sample.source.item: sample.duration for sample in samples}
    originals = json.loads((sample_set / "train.json").read_text())
    assert [by_item[index] for index in (0, 1, 2)] == [originals[index]["duration"] for index in (0, 1, 2)]


def test_nothing_is_written_where_the_input_is_refused(tmp_path):
    (tmp_path / "in.json").write_text('[{"a"')
    with pytest.raises(InputError):
        steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


REAL = Path(__file__).parents[2] / "shared" / "data" / "hi_vtg_charades.json"


@pytest.mark.skipif(not REAL.exists(), reason="the published annotations are not part of the repository")
def test_published_annotations(tmp_path):
    report = validate(REAL, tmp_path, None, ValidationSettings(probe_videos=False))
    assert report["counts"] == {"items": 1097, "queries": 2194, "accepted": 2027, "repaired": 77, "quarantined": 90}
    assert report["reasons"] == {"segment-past-end": 89, "duplicate": 1}
