"""Videos that change between validation and training."""

import json
from pathlib import Path

import pytest

from rarft import steps
from rarft.annotations.schema import read_samples
from rarft.errors import InputError
from rarft.training.unchanged_videos import UnchangedVideos, check_sizes, recorded_files
from rarft.video.reader import VideoError
from rarft.video.sampling import FrameSampling


@pytest.fixture
def data(sample_set, tmp_path):
    """A validated video, and what validation recorded."""
    (first, *_) = json.loads((sample_set / "train.json").read_text())
    video = tmp_path / "v.mp4"
    video.write_bytes((sample_set / first["video"]).read_bytes())
    (tmp_path / "in.json").write_text(json.dumps([{**first, "video": "v.mp4"}]))
    steps.validate(str(tmp_path / "in.json"), str(tmp_path / "out"))
    return video, recorded_files(read_samples(str(tmp_path / "out")))


def read_path(path, sampling, crop):
    return path


def test_unchanged_video_is_read(data):
    video, files = data
    check_sizes(files, 0)
    video.touch()
    assert UnchangedVideos(read_path, files)(str(video), FrameSampling(), None) == str(video)


def test_other_size_stops_before_training(data):
    video, files = data
    size = video.stat().st_size
    video.write_bytes(video.read_bytes() + b"x")
    with pytest.raises(InputError) as error:
        check_sizes(files, 0)
    expected = f"{video}: changed since validation ({size:,} bytes, now {size + 1:,}); run `rarft validate` again"
    assert str(error.value) == expected
    check_sizes(files, max_changed=1)  # skipped in training


def test_other_content_stops_reading(data):
    video, files = data
    content = bytearray(video.read_bytes())
    content[-1] ^= 1
    video.write_bytes(content)
    check_sizes(files, 0)
    reader = UnchangedVideos(read_path, files)
    for _ in range(2):
        with pytest.raises(
            VideoError, match="its content changed since validation; run `rarft validate` again"
        ) as error:
            reader(str(video), FrameSampling(), None)
        assert str(error.value).startswith(str(video))


def test_data_without_recorded_files(data):
    video, _ = data
    Path(video).unlink()
    check_sizes({}, 0)
    assert UnchangedVideos(read_path, {})("gone.mp4", FrameSampling(), None) == "gone.mp4"
