"""The run's fingerprint: the same while nothing changes, another one when anything that is read does."""

import os
import shutil

import pytest

from components.fingerprint.run import run
from rarft import steps
from rarft.errors import InputError
from rarft.storage.fingerprint import of_packages


@pytest.fixture
def data(sample_set, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(sample_set, folder)
    return folder


def looked_at(data, **options):
    return steps.fingerprint(str(data / "train.json"), eval_annotations=str(data / "eval.json"), **options)


def seen(data, **options):
    return looked_at(data, **options)[0]


def another_video(data):
    video = sorted((data / "videos").iterdir())[0]
    shutil.copy(video, data / "videos" / "another.mp4")


def a_video_less(data):
    sorted((data / "videos").iterdir())[0].unlink()


def a_longer_video(data):
    with sorted((data / "videos").iterdir())[0].open("ab") as file:
        file.write(b"more")


def a_newer_video(data):
    os.utime(sorted((data / "videos").iterdir())[0], (1, 1))


def other_annotations(data):
    (data / "train.json").write_text((data / "train.json").read_text() + "\n")


def other_held_out_annotations(data):
    (data / "eval.json").write_text((data / "eval.json").read_text() + "\n")


@pytest.mark.parametrize(
    "change",
    [another_video, a_video_less, a_longer_video, a_newer_video, other_annotations, other_held_out_annotations],
)
def test_it_changes_with_what_is_read(data, change):
    before = seen(data)
    assert seen(data) == before
    change(data)
    assert seen(data) != before


@pytest.mark.parametrize(
    ("change", "changes"),
    [
        (another_video, True),
        (a_video_less, True),
        (a_longer_video, True),
        (a_newer_video, False),
        (other_annotations, False),
    ],
)
def test_what_a_training_run_is_held_to_changes_with_names_and_sizes_of_videos(data, tmp_path, change, changes):
    before = looked_at(data)[1]
    moved = tmp_path / "elsewhere"
    shutil.copytree(data, moved)
    assert looked_at(moved)[1] == before
    change(data)
    assert (looked_at(data)[1] != before) == bool(changes)


def test_a_link_to_nowhere_is_no_reason_to_stop(data):
    before = seen(data)
    (data / "videos" / "gone.mp4").symlink_to("/nowhere.mp4")
    assert seen(data) != before


def test_it_does_not_change_with_other_files_beside_the_annotations(data):
    before = seen(data)
    (data / "notes.txt").write_text("of no concern")
    assert seen(data) == before


def test_it_changes_with_an_encoders_folder(data, tmp_path):
    encoder = tmp_path / "encoder"
    encoder.mkdir()
    (encoder / "config.json").write_text("{}")
    before = seen(data, encoder=str(encoder))
    assert before != seen(data)
    (encoder / "config.json").write_text('{"layers": 6}')
    assert seen(data, encoder=str(encoder)) != before


def test_a_third_checkpoint_has_a_fingerprint_of_its_own(data, tmp_path):
    third = tmp_path / "third"

    def found(name):
        return run(str(data / "train.json"), "", "", "", "", name, "", str(tmp_path / "out"), "")

    with pytest.raises(SystemExit):
        found(str(third))
    third.mkdir()
    (third / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    with_third = found(str(third))
    assert with_third[:2] == found("")[:2]  # neither validation nor training depends on it
    (third / "model.safetensors").write_text("weights")
    assert found(str(third))[2] != with_third[2] != found("tiny")[2]


def test_it_changes_with_the_code(tmp_path, monkeypatch):
    package = tmp_path / "somebodys_code"
    package.mkdir()
    (package / "__init__.py").write_text("a = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = of_packages("somebodys_code")
    assert of_packages("somebodys_code") == before
    (package / "__init__.py").write_text("a = 2\n")
    assert of_packages("somebodys_code") != before


def test_annotations_that_are_not_there_are_an_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        steps.fingerprint(str(tmp_path / "missing.json"))
