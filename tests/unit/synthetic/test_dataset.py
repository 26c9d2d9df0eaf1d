import hashlib
import json

import numpy as np

from rarft import steps
from rarft.annotations.schema import CATEGORIES, read_samples
from rarft.synthetic import dataset
from rarft.video.probe import probe


def test_annotations_are_reproducible_byte_for_byte(sample_set, tmp_path):
    steps.sample(str(tmp_path), {"train": 8, "eval": 2}, seed=3)
    assert (tmp_path / "train.json").read_bytes() == (sample_set / "train.json").read_bytes()
    # The longer split begins with the shorter one: its size never changes what it draws.
    longer = json.loads((sample_set / "eval.json").read_text())
    assert json.loads((tmp_path / "eval.json").read_text()) == longer[:2]


def test_annotations_are_the_same_on_every_machine(tmp_path):
    steps.sample(str(tmp_path), {"train": 3}, seed=0)
    digest = hashlib.sha256((tmp_path / "train.json").read_bytes()).hexdigest()
    assert digest == "1e1a7a6754bb510637b1c53debefc07b61d1b21197f96c8ecd892df6ab7d9a69"


def test_another_seed_or_split_draws_other_scenes(tmp_path, sample_set):
    steps.sample(str(tmp_path), {"train": 8}, seed=4)
    texts = {
        (path.read_text()) for path in (tmp_path / "train.json", sample_set / "train.json", sample_set / "eval.json")
    }
    assert len(texts) == 3


def test_clips_are_what_the_annotations_say(sample_set):
    for item in json.loads((sample_set / "train.json").read_text()):
        info = probe(sample_set / item["video"])
        assert (info.duration, info.fps, info.height, info.width) == (item["duration"], 4.0, 56, 56)


def test_the_shape_is_there_during_its_segment_and_only_then():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scene = dataset.draw_scene(rng)
        times = np.arange(scene.duration * dataset.FPS) / dataset.FPS
        frames = dataset.render(scene, times).astype(float)
        coloured = (frames.max(-1) - frames.min(-1)).reshape(len(times), -1).max(-1) > 20
        start, end = scene.segment
        assert coloured.tolist() == [start <= time < end for time in times]


def test_mismatches_change_as_many_attributes_as_their_difficulty_says(sample_set):
    changes = {"hard": 1, "medium": 2, "easy": 3}
    for item in json.loads((sample_set / "train.json").read_text()):
        answerable, refusable = item["GRPO"]
        differing = sum(a != b for a, b in zip(answerable["q"].split(), refusable["q"].split(), strict=True))
        assert differing == changes[refusable["difficulty"]] == len(refusable["c"])
        assert set(refusable["c"]) <= CATEGORIES


def test_the_sample_validates_without_a_finding(validated):
    report = json.loads((validated / "report.json").read_text())
    assert report["findings"] == []
    assert report["counts"]["accepted"] == len(read_samples(str(validated))) == 16
