"""Fingerprints of a run's input change exactly if the input does."""

import os
import shutil

import pytest

from components.fingerprint.component import fingerprint
from rarft import steps
from rarft.errors import InputError


@pytest.fixture
def data(sample_set, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(sample_set, folder)
    return folder


def fingerprints(data, **options):
    return steps.fingerprint(str(data / "train.json"), eval_annotations=str(data / "eval.json"), **options)


def add_video(data):
    video = sorted((data / "videos").iterdir())[0]
    shutil.copy(video, data / "videos" / "another.mp4")


def remove_video(data):
    sorted((data / "videos").iterdir())[0].unlink()


def extend_video(data):
    with sorted((data / "videos").iterdir())[0].open("ab") as file:
        file.write(b"more")


def touch_video(data):
    os.utime(sorted((data / "videos").iterdir())[0], (1, 1))


def change_annotations(data):
    (data / "train.json").write_text((data / "train.json").read_text() + "\n")


def change_eval_annotations(data):
    (data / "eval.json").write_text((data / "eval.json").read_text() + "\n")


@pytest.mark.parametrize(
    "change",
    [add_video, remove_video, extend_video, touch_video, change_annotations, change_eval_annotations],
)
def test_fingerprint_changes(data, change):
    before = fingerprints(data)[0]
    assert fingerprints(data)[0] == before
    change(data)
    assert fingerprints(data)[0] != before


@pytest.mark.parametrize(
    ("change", "changes"),
    [
        (add_video, True),
        (remove_video, True),
        (extend_video, True),
        (touch_video, False),
        (change_annotations, False),
    ],
)
def test_size_fingerprint_changes(data, tmp_path, change, changes):
    before = fingerprints(data)[1]
    moved = tmp_path / "moved"
    shutil.copytree(data, moved)
    assert fingerprints(moved)[1] == before
    change(data)
    assert (fingerprints(data)[1] != before) == bool(changes)


def test_broken_link(data):
    before = fingerprints(data)[0]
    (data / "videos" / "gone.mp4").symlink_to("/nowhere.mp4")
    assert fingerprints(data)[0] != before


def test_unrelated_file(data):
    before = fingerprints(data)[0]
    (data / "notes.txt").write_text("unrelated")
    assert fingerprints(data)[0] == before


def test_encoder_folder(data, tmp_path):
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text("{}")
    before = fingerprints(data, encoder=str(encoder))[0]
    assert before != fingerprints(data)[0]
    (encoder / "config.json").write_text('{"layers": 6}')
    assert fingerprints(data, encoder=str(encoder))[0] != before


def test_candidate_to_compare_with(data, tmp_path):
    other = tmp_path / "other"

    def run_component(name):
        inputs = dict.fromkeys(("video_root", "eval_annotations", "eval_video_root", "durations", "encoder"), "")
        outputs = {"gates": "", "output_uri": str(tmp_path / "out"), "final_uri": ""}
        annotations = str(data / "train.json")
        return fingerprint.python_func(annotations=annotations, format="riq", compare=name, **inputs, **outputs)

    with pytest.raises(SystemExit):
        run_component(str(other))
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    before = run_component(str(other))
    assert before[:2] == run_component("")[:2]  # neither validation nor training depends on it
    (other / "model.safetensors").write_text("weights")
    assert run_component(str(other))[2] != before[2] != run_component("tiny")[2]


def test_missing_annotations(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        steps.fingerprint(str(tmp_path / "missing.json"))
