import hashlib
import json

import numpy as np

from rarft import steps
from rarft.annotations.schema import CATEGORIES, read_samples
from rarft.synthetic import dataset
from rarft.video.reader import probe


def test_annotations_are_reproducible(sample_set, tmp_path):
    steps.make_dataset(str(tmp_path), {"train": 8, "eval": 2}, seed=3)
    assert (tmp_path / "train.json").read_bytes() == (sample_set / "train.json").read_bytes()
    # A longer split starts with the shorter one.
    longer = json.loads((sample_set / "eval.json").read_text())
    assert json.loads((tmp_path / "eval.json").read_text()) == longer[:2]


def test_annotations_hash(tmp_path):
    steps.make_dataset(str(tmp_path), {"train": 3}, seed=0)
    digest = hashlib.sha256((tmp_path / "train.json").read_bytes()).hexdigest()
    assert digest == "1e1a7a6754bb510637b1c53debefc07b61d1b21197f96c8ecd892df6ab7d9a69"


def test_seeds_and_splits_differ(tmp_path, sample_set):
    steps.make_dataset(str(tmp_path), {"train": 8}, seed=4)
    texts = {
        path.read_text() for path in (tmp_path / "train.json", sample_set / "train.json", sample_set / "eval.json")
    }
    assert len(texts) == 3


def test_clips_match_annotations(sample_set):
    for item in json.loads((sample_set / "train.json").read_text()):
        info = probe(str(sample_set / item["video"]))
        assert (info.duration, info.fps, info.height, info.width) == (item["duration"], 4.0, 56, 56)


def test_shape_is_visible_during_its_segment():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scene = dataset.draw_scene(rng)
        times = np.arange(scene.duration * dataset.FPS) / dataset.FPS
        frames = dataset.render(scene, times).astype(float)
        colored = (frames.max(-1) - frames.min(-1)).reshape(len(times), -1).max(-1) > 20
        start, end = scene.segment
        assert colored.tolist() == [start <= time < end for time in times]


def test_number_of_changes_matches_difficulty(sample_set):
    changes = {"hard": 1, "medium": 2, "easy": 3}
    for item in json.loads((sample_set / "train.json").read_text()):
        answerable, refusable = item["GRPO"]
        differing = sum(a != b for a, b in zip(answerable["q"].split(), refusable["q"].split(), strict=True))
        assert differing == changes[refusable["difficulty"]] == len(refusable["c"])
        assert set(refusable["c"]) <= CATEGORIES


def test_dataset_has_no_findings(validated):
    report = json.loads((validated / "report.json").read_text())
    assert report["findings"] == []
    assert report["counts"]["accepted"] == len(read_samples(str(validated))) == 16
