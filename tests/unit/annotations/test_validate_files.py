"""Validation of whole files: what queries must know of each other, videos, splits, and what is written."""

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
from rarft.annotations.schema import read_samples
from rarft.annotations.validate import ValidationSettings, validate
from rarft.errors import InputError


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
    durations = {sample.source.item: sample.duration for sample in read_samples(str(tmp_path / "out"))}
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


# In a process of its own: one that has threads does not fork.
VALIDATES = """
import os, sys
from pathlib import Path
from rarft.annotations.validate import ValidationSettings, validate
os.cpu_count = lambda: int(sys.argv[3])
validate(Path(sys.argv[1]), Path(sys.argv[2]), None, ValidationSettings(probe_videos=False, split=0.5))
"""


def test_one_process_and_several_write_the_same_bytes(tmp_path):
    items = many(700) + [5, item(timestamp=[1.0, 10.5])] + many(200) + [trouble for trouble, _, _ in CASES.values()]
    (tmp_path / "in.json").write_text(json.dumps(items))
    written = []
    for cores in ("1", "3"):
        out = tmp_path / cores
        subprocess.run([sys.executable, "-c", VALIDATES, tmp_path / "in.json", out, cores], check=True)
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert json.loads(written[0]["report.json"])["reasons"]["duplicate"] > 100
    assert written[0] == written[1]


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
    assert (tmp_path / "out" / "report.json").exists() == (code != 2)
    if code:
        assert error.splitlines()[-1].startswith("rarft validate: ")
        assert "Traceback" not in error


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
    rows = {(sample.source.item, sample.task_type): sample for sample in read_samples(str(tmp_path / "out"))}
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


def test_a_mended_row_of_the_quarantine_is_accepted(check, tmp_path):
    check([item(timestamp=[1.0, 99.0])])
    (row,) = read_lines(tmp_path / "out" / "quarantine.jsonl")
    assert row["_reference_queries"] == ["a dog runs"]
    assert row["_contrast_answer"] == "There is no cat."
    row["timestamp"] = [1.0, 9.0]
    report, rows, _ = check(json.dumps(row))
    assert report["counts"]["accepted"] == 1
    assert rows[0]["segment"] == [1.0, 9.0]
    assert rows[0]["contrast_answer"] == "There is no cat."


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
    samples = read_samples(str(tmp_path / "out"))
    assert all(Path(sample.video).is_file() for sample in samples)
    by_item = {sample.source.item: sample.duration for sample in samples}
    originals = json.loads((sample_set / "train.json").read_text())
    assert [by_item[index] for index in (0, 1, 2)] == [originals[index]["duration"] for index in (0, 1, 2)]


def test_nothing_is_written_where_the_input_is_refused(tmp_path):
    (tmp_path / "in.json").write_text('[{"a"')
    with pytest.raises(InputError):
        steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


REAL = ROOT.parent / "shared" / "data" / "hi_vtg_charades.json"


@pytest.mark.skipif(not REAL.exists(), reason="the published annotations are not part of the repository")
def test_published_annotations(tmp_path):
    report = validate(REAL, tmp_path, None, ValidationSettings(probe_videos=False))
    assert report["counts"] == {"items": 1097, "queries": 2194, "accepted": 2027, "repaired": 77, "quarantined": 90}
    assert report["reasons"] == {"segment-past-end": 89, "duplicate": 1}
