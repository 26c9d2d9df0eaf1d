"""Validation of files: checks across queries, videos, splits and output files."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.annotation_cases import CASES
from helpers.paths import ROOT
from helpers.riq_items import ANSWERABLE, REFUSABLE, item, query, read_lines
from rarft import steps
from rarft.annotations.annotation_index import video_hashes
from rarft.annotations.schema import read_samples
from rarft.annotations.validate import ValidationSettings, validate
from rarft.errors import InputError
from rarft.storage.location import LocalFolder


def test_reference_queries_order(validate_items):
    second = item(query_text="a dog sits", GRPO=[query(ANSWERABLE, q="a dog sits"), query(REFUSABLE, q="a cat sits")])
    other_video = item(video="w.mp4", query_text="snow", GRPO=[query(ANSWERABLE, q="snow")])
    _, rows, _ = validate_items([item(timestamp=[1.0, 99.0]), second, other_video])
    by_query = {row["query"]: row["reference_queries"] for row in rows}
    assert by_query["a cat runs"] == ["a dog runs", "a dog sits"]
    assert by_query["a cat sits"] == ["a dog sits", "a dog runs"]
    assert by_query["snow"] == ["snow"]


def test_duplicates_across_items(validate_items):
    report, _, _ = validate_items([item(), item()])
    assert report["reasons"] == {"duplicate": 2}


def test_quarantined_query_is_not_an_original(validate_items):
    unusable = item(GRPO=[ANSWERABLE, query(REFUSABLE, a=7)])
    report, rows, _ = validate_items([unusable, item(GRPO=[REFUSABLE])])
    assert report["reasons"] == {"wrong-type": 1}
    assert [row["query"] for row in rows] == ["a dog runs", "a cat runs"]


def test_video_repairs_can_be_turned_off(sample_set, tmp_path):
    items = json.loads((sample_set / "train.json").read_text())[:3]
    items[0]["video"] = "/elsewhere/" + Path(items[0]["video"]).name
    items[1]["duration"] = None
    items[2]["duration"] += 5
    (tmp_path / "in.json").write_text(json.dumps(items))
    report = steps.validate(
        str(tmp_path / "in.json"), str(tmp_path / "out"), str(sample_set),
        without_repairs=["find-video-by-name", "fill-duration"],
    )  # fmt: skip
    assert (
        report["counts"] | {"items": 3, "queries": 6, "accepted": 4, "repaired": 0, "quarantined": 2}
        == report["counts"]
    )
    assert report["reasons"] == {"video-not-found": 2}
    durations = {sample.source.item: sample.duration for sample in read_samples(str(tmp_path / "out"))}
    assert durations == {1: None, 2: items[2]["duration"]}


def test_unknown_repair(tmp_path, sample_set):
    with pytest.raises(InputError, match="no such repair; use one of clamp-segment"):
        steps.validate(str(sample_set / "train.json"), str(tmp_path), without_repairs=["magic"])


def random_items(videos, seed=0):
    """Items of `videos` videos, one to five each, some with only answerable or only refusable queries."""
    rng = random.Random(seed)
    items = []
    for video in range(videos):
        queries = rng.choice([[ANSWERABLE], [REFUSABLE], [ANSWERABLE, REFUSABLE], [ANSWERABLE, REFUSABLE]])
        for number in range(rng.randint(1, 5)):
            own = [query(one, q=f"{one['q']} {number}") for one in queries]
            items.append(item(video=f"{rng.choice('ab')}/{video}.mp4", query_text=f"a dog runs {number}", GRPO=own))
    return items


def test_split(validate_items, tmp_path):
    def split(items, seed):
        report, rows, _ = validate_items(items, split=0.8, seed=seed)
        parts = {name: read_lines(tmp_path / "out" / f"riq.{name}.jsonl") for name in ("train", "eval")}
        assert sorted(row["id"] for part in parts.values() for row in part) == sorted(row["id"] for row in rows)
        return report, parts

    items = random_items(200)
    report, parts = split(items, seed=1)
    videos = {name: {Path(row["video"]).name for row in part} for name, part in parts.items()}
    assert not videos["train"] & videos["eval"]
    for kind in ("answerable", "refusable"):
        train, held_out = (sum(row["task_type"] == kind for row in parts[name]) for name in ("train", "eval"))
        assert train / (train + held_out) == pytest.approx(0.8, abs=0.02)
    counts = report["splits"]["train"]
    assert (counts["queries"], counts["videos"]) == (len(parts["train"]), len(videos["train"]))
    # It depends on the seed and not on the order of the file.
    _, shuffled = split(list(reversed(items)), seed=1)
    assert {Path(row["video"]).name for row in shuffled["eval"]} == videos["eval"]
    _, other = split(items, seed=2)
    assert {Path(row["video"]).name for row in other["eval"]} != videos["eval"]


# For a subprocess: a process with threads does not fork.
VALIDATE = """
import os, sys
from pathlib import Path
from rarft.annotations.validate import ValidationSettings, validate
from rarft.storage.location import LocalFolder
os.cpu_count = lambda: int(sys.argv[3])
validate(Path(sys.argv[1]), LocalFolder(Path(sys.argv[2])), None, ValidationSettings(split=0.5))
"""


def test_parallel_output_is_bitwise_identical(tmp_path):
    items = (
        random_items(700)
        + [5, item(timestamp=[1.0, 10.5])]
        + random_items(200)
        + [invalid for invalid, _, _ in CASES.values()]
    )
    (tmp_path / "in.json").write_text(json.dumps(items))
    written = []
    for cores in ("1", "3"):
        out = tmp_path / cores
        subprocess.run([sys.executable, "-c", VALIDATE, tmp_path / "in.json", out, cores], check=True)
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert json.loads(written[0]["report.json"])["reasons"]["duplicate"] > 100
    assert written[0] == written[1]


def test_excluded_videos(validate_items):
    excluded = video_hashes([item(video="/other/path/v.mp4")])
    report, rows, _ = validate_items([item(), item(video="w.mp4")], excluded_videos=excluded)
    assert report["reasons"] == {"train-eval-video-overlap": 2}
    assert {row["video"] for row in rows} == {"w.mp4"}


@pytest.mark.parametrize(
    ("flags", "code"),
    [
        ([], 0), (["--strict"], 1), (["--max-quarantine", "50%"], 0), (["--max-quarantine", "49%"], 1),
        (["--max-quarantine", "1"], 0), (["--max-quarantine", "0"], 1), (["--max-quarantine", "some"], 2),
    ],
)  # fmt: skip
def test_quarantine_limit_exit_code(main, tmp_path, flags, code):
    (tmp_path / "in.json").write_text(json.dumps([item(timestamp=[1.0, 99.0])]))
    found, _, error = main("validate", "in.json", "--probe", "none", "--out", "out", *flags)
    assert found == code
    assert (tmp_path / "out" / "report.json").exists() == (code != 2)
    if code:
        assert error.splitlines()[-1].startswith("rarft validate: ")
        assert "Traceback" not in error


def test_malformed_line_is_quarantined(validate_items):
    broken = '{"video": "a.mp4", "GR'
    report, _, quarantine = validate_items("\n".join([json.dumps(item()), broken, json.dumps(item(video="w.mp4"))]))
    assert report["counts"] == {"items": 3, "queries": 5, "accepted": 4, "repaired": 0, "quarantined": 1}
    assert report["reasons"] == {"malformed-line": 1}
    assert quarantine[0]["_line"] == broken


def test_segment_of_other_query_revalidated(validate_items, tmp_path):
    validate_items([item(GRPO=[query(ANSWERABLE, q="a dog sits"), ANSWERABLE])])
    report, _, quarantine = validate_items((tmp_path / "out" / "quarantine.jsonl").read_text())
    assert report["counts"]["accepted"] == 0
    assert report["reasons"] == {"segment-missing": 1}
    quarantine[0]["timestamp"] = [7.0, 9.0]
    _, rows, _ = validate_items(json.dumps(quarantine[0]))
    assert rows[0]["segment"] == [7.0, 9.0]


def test_videos_of_the_same_base_name(sample_set, tmp_path):
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
    rows = {(sample.source.item, sample.task_type): sample for sample in read_samples(str(tmp_path / "out"))}
    assert rows[2, "answerable"].video == str(tmp_path / "b" / "1.mp4")
    # Two names of one file are one video; two files of one name are two.
    assert rows[0, "refusable"].reference_queries == ["a dog runs"]
    assert rows[1, "refusable"].reference_queries == ["a dog runs", "a bird"]


def test_crop_of_too_few_frames(sample_set, tmp_path):
    first = json.loads((sample_set / "train.json").read_text())[0]
    crops = [(0.0, 8.0), (3.05, 3.3), (100.0, 200.0)]
    items = [{**first, "video_start": start, "video_end": end} for start, end in crops]
    (tmp_path / "in.json").write_text(json.dumps(items))
    report = steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"), str(sample_set))
    assert report["reasons"] == {"video-too-short": 2, "duplicate": 2}
    assert report["codes"]["RIQ113"] == 1


def test_video_with_invalid_metadata_text(tmp_path, sample_set):
    clip = next((sample_set / "videos").glob("train_*.mp4")).read_bytes()
    encoder = b"Lavf"  # FFmpeg writes its name into the file as metadata
    assert encoder in clip
    (tmp_path / "v.mp4").write_bytes(clip.replace(encoder, b"\xe9\xff\xe9\xff"))
    (tmp_path / "in.json").write_text(json.dumps([item(duration=None)]))
    report = steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"))
    assert report["counts"]["repaired"] == 2


def test_fixed_quarantined_row_is_accepted(validate_items, tmp_path):
    validate_items([item(timestamp=[1.0, 99.0])])
    (row,) = read_lines(tmp_path / "out" / "quarantine.jsonl")
    assert row["_reference_queries"] == ["a dog runs"]
    assert row["_contrast_answer"] == "There is no cat."
    row["timestamp"] = [1.0, 9.0]
    report, rows, _ = validate_items(json.dumps(row))
    assert report["counts"]["accepted"] == 1
    assert rows[0]["segment"] == [1.0, 9.0]
    assert rows[0]["contrast_answer"] == "There is no cat."


def test_videos_are_found_and_probed(sample_set, tmp_path):
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
    samples = read_samples(str(tmp_path / "out"))
    assert all(Path(sample.video).is_file() for sample in samples)
    by_item = {sample.source.item: sample.duration for sample in samples}
    originals = json.loads((sample_set / "train.json").read_text())
    assert [by_item[index] for index in (0, 1, 2)] == [originals[index]["duration"] for index in (0, 1, 2)]


def test_rows_after_a_byte_order_mark(validate_items, tmp_path):
    validate_items([item()])
    rows = tmp_path / "out" / "riq.jsonl"
    marked = tmp_path / "marked.jsonl"
    marked.write_bytes(b"\xef\xbb\xbf" + rows.read_bytes())
    assert read_samples(str(marked)) == read_samples(str(rows))


def test_unreadable_input_writes_nothing(tmp_path):
    (tmp_path / "in.json").write_text('[{"a"')
    with pytest.raises(InputError):
        steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


REAL = ROOT.parent / "shared" / "data" / "hi_vtg_charades.json"


@pytest.mark.skipif(not REAL.exists(), reason="the published annotations are not in the repository")
def test_published_annotations(tmp_path):
    report = validate(REAL, LocalFolder(tmp_path), None, ValidationSettings())
    assert report["counts"] == {"items": 1097, "queries": 2194, "accepted": 2027, "repaired": 77, "quarantined": 90}
    assert report["reasons"] == {"segment-past-end": 89, "duplicate": 1}


def test_shuffled_queries_without_answers(validate_items):
    """Blank answers, refusals without tags, two answerable queries per item, no thoughts: all of it is usable."""

    def entry(text, answerable, answer=""):
        return {"q": text, "a": answer, "r": answerable, "difficulty": "original" if answerable else "easy"}

    def moment(text, timestamp, *queries):
        fields = {"video": "/somebody/else/a.mp4", "timestamp": timestamp, "duration": 30.96, "think": ""}
        return {**fields, "query_text": text, "GRPO": list(queries)}

    items = [
        moment("turns on a lamp", [4.3, 9.4], entry("turns on a lamp", True), entry("holds a switch", True)),
        moment("reads", [], entry("reads", False), entry("sings", False)),
        moment("opens a box", [2, 8], entry("opens a box", True), entry("swims", False, "This is another video.")),
    ]
    report, rows, _ = validate_items(items)
    assert report["counts"] == {"items": 3, "queries": 6, "accepted": 2, "repaired": 3, "quarantined": 1}
    assert report["reasons"] == {"segment-of-other-query": 1}
    assert report["codes"]["RIQ302"] == 2
    answers = ["4.30 to 9.40", "", "", "2.00 to 8.00", "This is another video."]
    assert [row["gt_answer"] for row in rows] == answers
    assert [row["contrast_answer"] for row in rows] == [None, None, None, "This is another video.", None]


def test_shuffled_queries_without_durations(validate_items):
    """Refusals without tags, no categories, no durations, and a caption per occurrence: all of it is usable."""
    refusal = "This query is unrelated to the video."
    items = [
        {
            "video": f"/somebody/else/{name}_0.0_150.0.mp4", "query_text": text, "timestamp": [start, end],
            "think": f"<think>\n<timestep>{start} to {end}</timestep> {text} "
            f"<timestep>90 to 99</timestep> {text}\n</think>",
            "GRPO": [
                {"q": text, "a": f"<answer>{start} to {end}</answer>", "r": True, "difficulty": "original"},
                {"q": other, "a": refusal, "r": False, "c": [], "class": "id", "difficulty": "easy"},
            ],
        }
        for name, text, start, end, other in [
            ("abc", "A boat leaves the harbor", 0, 40, "A baker kneads dough"),
            ("def", "A baker kneads dough", 26, 44, "A boat leaves the harbor"),
        ]
    ]  # fmt: skip
    report, rows, _ = validate_items(items)
    assert report["counts"] == {"items": 2, "queries": 4, "accepted": 2, "repaired": 2, "quarantined": 0}
    assert [(row["segment"], row["gt_answer"]) for row in rows[:2]] == [([0.0, 40.0], "0 to 40"), (None, refusal)]
    assert rows[0]["captions"] == [[0.0, 40.0, items[0]["query_text"]], [90.0, 99.0, items[0]["query_text"]]]
    assert rows[0]["contrast_answer"] == refusal


@pytest.mark.parametrize(
    ("answer", "segments"),
    [
        ("", None),
        ("it sits", None),
        ("<answer>4.3 to 9.4</answer>", None),  # a copy of the timestamp
        ("<answer>4 to 9</answer>", None),
        ("<answer>12.5 to 17.0</answer>", [[12.5, 17.0]]),
        ("<answer>1 to 3, 12 to 17</answer>", [[1.0, 3.0], [12.0, 17.0]]),
        ("<answer>17.0 to 12.5</answer>", None),
        ("<answer>12.5 to 99.0</answer>", None),
    ],
)
def test_second_answerable_query(validate_items, answer, segments):
    """A second answerable query has a segment only if its own answer states one."""
    queries = [
        {"q": "a dog runs", "a": "", "r": True},
        {"q": "a dog sits", "a": answer, "r": True},
    ]
    item = {"video": "a.mp4", "query_text": "a dog runs", "timestamp": [4.3, 9.4], "duration": 30.0, "GRPO": queries}
    report, rows, quarantine = validate_items([item])
    assert [row["segments"] for row in rows] == [[[4.3, 9.4]]] + [segments] * bool(segments)
    assert report["counts"]["repaired"] == len(rows)
    if segments:
        assert report["codes"]["RIQ118"] == 1
    else:  # as the only query of its row, it is not taken for the owner of the timestamp
        assert [row["GRPO"][0]["q"] for row in quarantine] == ["a dog sits"]
        again, kept, _ = validate_items(quarantine)
        assert (again["counts"]["quarantined"], kept) == (1, [])
