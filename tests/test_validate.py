import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rarft import steps
from rarft.errors import InputError, one_line
from rarft.riq import second_pass
from rarft.riq.findings import CHECK_OF_CODE, REPAIRS, catalogue_page
from rarft.riq.schema import iterate_samples, read_samples
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


def read_lines(path):
    """The rows of a JSON Lines file. A line ends with \\n and nothing else, whatever str.splitlines thinks."""
    with path.open(newline="\n", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@pytest.fixture
def check(tmp_path):
    """Validate items without looking at videos; returns the report, the samples and the quarantine."""

    def run(items, **options):
        source, out = tmp_path / "in.json", tmp_path / "out"
        source.write_text(items if isinstance(items, str) else json.dumps(items))
        report = validate(source, out, None, ValidationSettings(**{"probe_videos": False, **options}))
        counts = report["counts"]
        assert counts["accepted"] + counts["repaired"] + counts["quarantined"] == counts["queries"]
        rows, quarantine = read_lines(out / "riq.jsonl"), read_lines(out / "quarantine.jsonl")
        assert (len(rows), len(quarantine)) == (counts["accepted"] + counts["repaired"], counts["quarantined"])
        written = json.loads((out / "report.json").read_text())
        assert {name: value for name, value in written.items() if name != "findings"} == report
        return written, rows, quarantine

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
    "answer of another segment": (item(timestamp=[5.0, 9.0]), "AA", ["RIQ310"]),
    "answer without a segment": (
        item(GRPO=[query(ANSWERABLE, a="<answer>yes</answer>"), REFUSABLE]),
        "AA",
        ["RIQ310"],
    ),
    "special token": (item(GRPO=[ANSWERABLE, query(REFUSABLE, q="a <|video_pad|> runs")]), "AQ", ["RIQ309"]),
    "half a surrogate pair": (item(note="\ud800"), "QQ", ["RIQ012", "RIQ012"]),
    "a number that JSON has not": (item(score=float("nan")), "AA", ["RIQ013"]),
    "query_text with white space": (item(query_text=" a dog runs "), "AA", []),
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
    "no video": (item(video=None), "QQ", ["RIQ011", "RIQ308"]),
    "query is a number": (item(GRPO=[query(ANSWERABLE, q=7), REFUSABLE]), "QA", ["RIQ011", "RIQ308"]),
    "query missing": (item(GRPO=[query(ANSWERABLE, q=...), REFUSABLE]), "QA", ["RIQ011", "RIQ308"]),
    "no references": (item(GRPO=[REFUSABLE, query(REFUSABLE, q="a cow runs")]), "AA", ["RIQ308", "RIQ308"]),
    "refusal with a timestamp": (
        item(GRPO=[ANSWERABLE, query(REFUSABLE, a="<answer>not 1 to 4</answer>")]),
        "AA",
        ["RIQ307"],
    ),
    "refuses a truth": (item(GRPO=[ANSWERABLE, query(REFUSABLE, q="A dog  runs.")]), "AQ", ["RIQ503"]),
    "renamed difficulty": (item(GRPO=[ANSWERABLE, query(REFUSABLE, difficulty="strong")]), "AA", ["RIQ403"]),
    "segment outside the crop": (item(video_start=2.0), "AA", ["RIQ114"]),
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


# repair: (an item that it mends, the answerable and the refusable query's fates without it, code)
REPAIRS_OFF = {
    "clamp": (item(timestamp=[1.0, 10.9]), "QA", "RIQ102"),
    "fill-answer": (item(GRPO=[query(ANSWERABLE, a=""), REFUSABLE]), "QA", "RIQ303"),
    "wrap-answer": (item(GRPO=[ANSWERABLE, query(REFUSABLE, a="no cat")]), "AQ", "RIQ304"),
    "correct-tag": (TROUBLES["correct tag"][0], "AQ", "RIQ305"),
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


def test_videos_are_not_mended_where_that_is_turned_off(sample_set, tmp_path):
    items = json.loads((sample_set / "train.json").read_text())[:3]
    items[0]["video"] = "/elsewhere/" + Path(items[0]["video"]).name
    items[1]["duration"] = None
    items[2]["duration"] += 5
    (tmp_path / "in.json").write_text(json.dumps(items))
    report = steps.validate(
        str(tmp_path / "in.json"), str(tmp_path / "out"), str(sample_set),
        without_repairs=["reroot-video", "fill-duration"],
    )  # fmt: skip
    assert (
        report["counts"] | {"items": 3, "queries": 6, "accepted": 4, "repaired": 0, "quarantined": 2}
        == report["counts"]
    )
    assert report["reasons"] == {"video-not-found": 2}
    durations = {sample.source.item: sample.duration for sample in read_samples(str(tmp_path / "out"), "data")}
    assert durations == {1: None, 2: items[2]["duration"]}


def test_an_unknown_repair_is_told(tmp_path, sample_set):
    with pytest.raises(InputError, match="no such repair; use one of clamp"):
        steps.validate(str(sample_set / "train.json"), str(tmp_path), without_repairs=["magic"])


def many(videos, seed=0):
    """Items of so many videos, some with only answerable or only refusable queries, one to five items each."""
    rng = random.Random(seed)
    items = []
    for video in range(videos):
        queries = rng.choice([[ANSWERABLE], [REFUSABLE], [ANSWERABLE, REFUSABLE], [ANSWERABLE, REFUSABLE]])
        for number in range(rng.randint(1, 5)):
            own = [query(one, q=f"{one['q']} {number}") for one in queries]
            items.append(item(video=f"{rng.choice('ab')}/{video}.mp4", query_text=f"a dog runs {number}", GRPO=own))
    return items


def test_a_split_is_by_video_and_balanced_and_reproducible(check, tmp_path):
    def split(items, seed):
        report, rows, _ = check(items, split=0.8, seed=seed)
        parts = {name: read_lines(tmp_path / "out" / f"riq.{name}.jsonl") for name in ("train", "eval")}
        assert sorted(row["id"] for part in parts.values() for row in part) == sorted(row["id"] for row in rows)
        return report, parts

    items = many(200)
    report, parts = split(items, seed=1)
    videos = {name: {Path(row["video"]).name for row in part} for name, part in parts.items()}
    assert not videos["train"] & videos["eval"]
    for kind in ("answerable", "refusable"):
        train, held_out = (sum(row["task_type"] == kind for row in parts[name]) for name in ("train", "eval"))
        assert train / (train + held_out) == pytest.approx(0.8, abs=0.02)
    counts = report["splits"]["train"]
    assert (counts["queries"], counts["videos"]) == (len(parts["train"]), len(videos["train"]))
    # The same whatever the order of the file; another with another seed.
    _, shuffled = split(list(reversed(items)), seed=1)
    assert {Path(row["video"]).name for row in shuffled["eval"]} == videos["eval"]
    _, other = split(items, seed=2)
    assert {Path(row["video"]).name for row in other["eval"]} != videos["eval"]


def test_one_process_and_several_write_the_same_bytes(check, tmp_path, monkeypatch):
    items = many(700) + [5, item(timestamp=[1.0, 10.5])] + many(200) + [trouble for trouble, _, _ in TROUBLES.values()]

    def outputs(cores):
        monkeypatch.setattr(second_pass.os, "cpu_count", lambda: cores)
        report, _, _ = check(items, split=0.5)
        return report, {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}

    report, expected = outputs(1)
    assert report["reasons"]["duplicate"] > 100
    assert outputs(3) == (report, expected)


def test_videos_of_an_evaluation_file_are_kept_out(check, tmp_path):
    (tmp_path / "eval.json").write_text(json.dumps([item(video="/other/path/v.mp4")]))
    report, rows, _ = check([item(), item(video="w.mp4")], against=tmp_path / "eval.json")
    assert report["reasons"] == {"video-leaks": 2}
    assert {row["video"] for row in rows} == {"w.mp4"}


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ([], 0), (["--strict"], 1), (["--max-quarantine", "50%"], 0), (["--max-quarantine", "49%"], 1),
        (["--max-quarantine", "1"], 0), (["--max-quarantine", "0"], 1), (["--max-quarantine", "some"], 2),
    ],
)  # fmt: skip
def test_exit_code_where_more_is_quarantined_than_accepted(main, tmp_path, flags, code):
    (tmp_path / "in.json").write_text(json.dumps([item(timestamp=[1.0, 99.0])]))
    found, _, error = main("validate", "in.json", "--no-probe-videos", "--out", "out", *flags)
    assert found == code
    assert (tmp_path / "out" / "report.json").exists()
    if code:
        assert error.splitlines()[-1].startswith("rarft validate: ")
        assert "Traceback" not in error


def test_the_catalogue_in_the_docs_is_current():
    page = Path(__file__).parents[1] / "docs" / "checks.md"
    assert page.read_text() == catalogue_page(), "run `python -m rarft.riq.findings > docs/checks.md`"


def test_every_check_is_in_a_table_or_has_a_test_of_its_own():
    in_tables = {code for _, _, codes in TROUBLES.values() for code in codes}
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


def test_a_bad_line_is_quarantined_as_it_is(check):
    broken = '{"video": "a.mp4", "GR'
    report, _, quarantine = check("\n".join([json.dumps(item()), broken, json.dumps(item(video="w.mp4"))]))
    assert report["counts"] == {"items": 3, "queries": 5, "accepted": 4, "repaired": 0, "quarantined": 1}
    assert report["reasons"] == {"broken-line": 1}
    assert quarantine[0]["_line"] == broken


def test_a_query_that_owns_no_segment_owns_none_when_fed_again_unmended(check, tmp_path):
    check([item(GRPO=[query(ANSWERABLE, q="a dog sits"), ANSWERABLE])])
    report, _, quarantine = check((tmp_path / "out" / "quarantine.jsonl").read_text())
    assert report["counts"]["accepted"] == 0
    assert report["reasons"] == {"segment-missing": 1}
    quarantine[0]["timestamp"] = [7.0, 9.0]
    _, rows, _ = check(json.dumps(quarantine[0]))
    assert rows[0]["segment"] == [7.0, 9.0]


def test_fields_of_item_and_query_are_both_kept(check):
    _, rows, _ = check([item(PRO=1, other=2, GRPO=[query(ANSWERABLE, PRO=3), REFUSABLE])])
    assert [row["extra"] for row in rows] == [{"item.PRO": 1, "other": 2, "PRO": 3}, {"PRO": 1, "other": 2}]


def test_videos_of_one_base_name(sample_set, tmp_path):
    clips = sorted((sample_set / "videos").glob("train_*.mp4"))
    for folder, clip in zip("ab", clips, strict=False):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.mp4").write_bytes(clip.read_bytes())
    items = [
        item(video="a/1.mp4", duration=None, timestamp=[1.0, 4.0]),
        item(video="b/1.mp4", duration=None, timestamp=[1.0, 4.0]),
        item(video="/else/b/1.mp4", duration=None, query_text="a bird", GRPO=[query(ANSWERABLE, q="a bird")]),
        item(video="/else/1.mp4"),
    ]
    (tmp_path / "in.json").write_text(json.dumps(items))
    report = steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"), str(tmp_path))
    assert report["reasons"] == {"video-ambiguous": 2}
    rows = {(sample.source.item, sample.task_type): sample for sample in read_samples(str(tmp_path / "out"), "data")}
    assert rows[2, "answerable"].video == str(tmp_path / "b" / "1.mp4")
    # Two names of one file are one video, two files of one name are two.
    assert rows[0, "refusable"].reference_queries == ["a dog runs"]
    assert rows[1, "refusable"].reference_queries == ["a dog runs", "a bird"]


def test_a_crop_must_show_two_frames(sample_set, tmp_path):
    first = json.loads((sample_set / "train.json").read_text())[0]
    crops = [(0.0, 8.0), (3.05, 3.3), (100.0, 200.0)]
    items = [{**first, "video_start": start, "video_end": end} for start, end in crops]
    (tmp_path / "in.json").write_text(json.dumps(items))
    report = steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"), str(sample_set))
    assert report["reasons"] == {"video-too-short": 2, "duplicate": 2}
    assert report["codes"]["RIQ113"] == 1


def test_a_title_in_another_encoding_harms_no_video(tmp_path, sample_set):
    clip = next((sample_set / "videos").glob("train_*.mp4")).read_bytes()
    encoder = b"Lavf"  # FFmpeg writes its name into the file as metadata
    assert encoder in clip
    (tmp_path / "v.mp4").write_bytes(clip.replace(encoder, b"\xe9\xff\xe9\xff"))
    (tmp_path / "in.json").write_text(json.dumps([item(duration=None)]))
    report = steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"))
    assert report["counts"]["repaired"] == 2


@pytest.mark.parametrize("unit", ["<answer>", "<timestep>", "<correct>", "<correction>", "<answer></answer>"])
def test_time_is_linear_in_the_length_of_a_text(check, unit):
    text = unit * (1_000_000 // len(unit))
    started = time.process_time()
    check([item(think=text, GRPO=[ANSWERABLE, query(REFUSABLE, a=text)])])
    assert time.process_time() - started < 20


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=6), children, max_size=4),
    max_leaves=8,
)
KEYS = ["video", "query_text", "timestamp", "duration", "video_start", "video_end", "think", "difficulty", "GRPO"]
QUERY_KEYS = ["q", "a", "r", "c", "difficulty", "hardness_level"]


@st.composite
def mutated_items(draw):
    """A good item of which some fields hold anything at all, or are gone."""
    mutated = json.loads(json.dumps(item()))
    for _ in range(draw(st.integers(0, 3))):
        target, keys = draw(st.sampled_from([(mutated, KEYS), *((one, QUERY_KEYS) for one in mutated["GRPO"])]))
        key = draw(st.sampled_from(keys))
        if key == "GRPO" and target is mutated and draw(st.booleans()):
            continue
        value = draw(json_values)
        target.pop(key, None) if draw(st.booleans()) else target.__setitem__(key, value)
        if not isinstance(mutated.get("GRPO"), list) or not all(isinstance(one, dict) for one in mutated["GRPO"]):
            break
    return mutated


def expected_queries(found):
    is_item = isinstance(found, dict) and isinstance(found.get("GRPO"), list) and found["GRPO"]
    return len(found["GRPO"]) if is_item else 1


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(mutated_items() | json_values, min_size=1, max_size=4))
def test_whatever_stands_in_a_file_no_query_is_lost(check, tmp_path, items):
    report, rows, quarantine = check(json.dumps(items))
    assert len(list(iterate_samples(tmp_path / "out" / "riq.jsonl"))) == len(rows)
    assert report["counts"]["items"] == len(items)
    assert report["counts"]["queries"] == sum(map(expected_queries, items))
    assert all(any(finding["severity"] == "error" for finding in row["_findings"]) for row in quarantine)
    assert len({row["id"] for row in rows}) == len(rows)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(mutated_items(), min_size=1, max_size=4))
def test_whatever_was_kept_is_kept_unchanged_when_validated_again(check, tmp_path, items):
    report, _, _ = check(json.dumps(items))
    if report["counts"]["accepted"] + report["counts"]["repaired"] == 0:
        return
    first = (tmp_path / "out" / "riq.jsonl").read_bytes()
    again = validate(tmp_path / "out" / "riq.jsonl", tmp_path / "again", None, ValidationSettings(probe_videos=False))
    assert again["counts"]["quarantined"] == again["counts"]["repaired"] == 0
    assert (tmp_path / "again" / "riq.jsonl").read_bytes() == first


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_at_all_are_read_or_refused_in_one_line(tmp_path, content):
    (tmp_path / "in.json").write_bytes(content)
    try:
        report = validate(tmp_path / "in.json", tmp_path / "out", None, ValidationSettings(probe_videos=False))
    except InputError as error:
        message = one_line(error)
        report = None
    if report is None:
        assert str(tmp_path / "in.json") in message
        return
    counts = report["counts"]
    assert counts["accepted"] + counts["repaired"] + counts["quarantined"] == counts["queries"]


def test_validating_the_output_again_gives_the_same_bytes(check, tmp_path):
    check([trouble for trouble, _, _ in TROUBLES.values()])
    first = (tmp_path / "out" / "riq.jsonl").read_bytes()
    again = tmp_path / "again"
    report = validate(tmp_path / "out" / "riq.jsonl", again, None, ValidationSettings(probe_videos=False))
    assert (again / "riq.jsonl").read_bytes() == first
    assert report["counts"]["quarantined"] == 0


def test_a_mended_row_of_the_quarantine_is_accepted(check, tmp_path):
    check([item(timestamp=[1.0, 99.0])])
    (row,) = read_lines(tmp_path / "out" / "quarantine.jsonl")
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
