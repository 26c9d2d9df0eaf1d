"""A folder with one of each kind of bad file: the good ones are trained on and evaluated, the others accounted for."""

import json
import re
import shutil

import pytest

from helpers.bad_videos import KINDS, make_bad_videos
from helpers.riq_items import read_lines

QUICK = ("--max_steps", "2", "--per_device_train_batch_size", "2", "--num_generations", "2")
TRAINING = ("--max_steps", "11", "--per_device_train_batch_size", "2", "--num_generations", "2")  # one epoch


def make_annotations(sample_set, folder, split, bad):
    """Copy the annotations of a split, and those of its first video once more for each bad file."""
    items = json.loads((sample_set / f"{split}.json").read_text())[:2]
    (folder / f"{split}.json").write_text(
        json.dumps(items + [{**items[0], "video": f"videos/{name}"} for name in bad])
    )
    return len(items)


@pytest.mark.long
def test_run_with_bad_videos(cli, sample_set, tmp_path):
    """Validation quarantines the queries of bad files, in both splits."""
    shutil.copytree(sample_set / "videos", tmp_path / "videos")
    bad = make_bad_videos(tmp_path / "videos", next((tmp_path / "videos").glob("train_*.mp4")))
    good = {split: make_annotations(sample_set, tmp_path, split, bad) for split in ("train", "eval")}
    done = cli(
        "run", "--annotations", "train.json", "--eval-annotations", "eval.json", "--out", "out", "--", *QUICK,
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    queries = {split: 2 * (count + len(bad)) for split, count in good.items()}
    last = done.stdout[done.stdout.index("quarantined:") :]
    assert f"quarantined:        {2 * len(bad)} of {queries['train']} training queries" in last
    assert f"{2 * len(bad)} of {queries['eval']} evaluation queries" in last
    assert re.search(r"skipped: +0 videos in training, 0 of \d+ queries in evaluation", last)
    metrics = json.loads((tmp_path / "out" / "evaluation" / "metrics.json").read_text())
    assert (metrics["samples"], metrics["skipped"]) == (2 * good["eval"], 0)
    for folder in ("validation", "validation-eval"):
        rows = read_lines(tmp_path / "out" / folder / "quarantine.jsonl")
        assert {row["video"] for row in rows} == {f"videos/{name}" for name in bad}


@pytest.mark.long
def test_videos_that_break_after_validation(main, sample_set, tmp_path):
    """Training and evaluation skip them, and the results of the good ones do not change."""
    videos = tmp_path / "videos"
    shutil.copytree(sample_set / "videos", videos)
    good = next(videos.glob("eval_*.mp4"))
    for name in KINDS:
        shutil.copy(good, videos / name)
    count = make_annotations(sample_set, tmp_path, "eval", KINDS)
    assert main("validate", "eval.json", "--out", "data")[0] == 0
    make_bad_videos(videos, good)
    code, _, error = main("train", "--preset", "tiny", "--train_data_path", "data", *TRAINING, "--out", "run")
    assert code == 0, error
    assert error.count("video skipped: ") == len(KINDS)
    log = read_lines(tmp_path / "run" / "checkpoints" / "rarft" / "training.jsonl")
    assert [entry["videos/skipped"] for entry in log if "reward" in entry][-1] == len(KINDS)
    code, output, error = main("evaluate", "--checkpoint", "tiny-truthful", "--data", "data", "--out", "out")
    assert code == 0, error
    assert f"{2 * (count + len(KINDS))} queries, {2 * len(KINDS)} skipped" in output
    assert all(f"videos/{name}" in error for name in KINDS)
    rows = read_lines(tmp_path / "out" / "predictions.jsonl")
    assert {row["sample"]["video"].rsplit("/", 1)[-1] for row in rows if row["skipped"]} == set(KINDS)
    assert all(row["completion"] for row in rows if not row["skipped"])
