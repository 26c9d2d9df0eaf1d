from pathlib import Path

import pytest

from rarft.samples import FPS, SIZE
from rarft.video.decode import FrameSampling, frame_size, read_frames
from rarft.video.probe import VideoError, probe

SAMPLING = FrameSampling(max_pixels=64 * 56 * 56)


@pytest.fixture
def clip(sample_set):
    return str(sample_set / "videos" / "train_0000.mp4")


def test_two_frames_a_second_over_the_whole_clip(clip):
    info, frames = probe(clip), read_frames(clip, SAMPLING)
    count = round(info.duration * 2)
    assert tuple(frames.pixels_TCHW.shape) == (count, 3, SIZE, SIZE)
    assert (frames.indices[0], frames.indices[-1]) == (0, info.frames - 1)
    assert frames.sample_fps == pytest.approx(2.0)


def test_a_crop_takes_its_frames_only(clip):
    frames = read_frames(clip, SAMPLING, crop=(2.0, 6.0))
    assert (frames.indices[0], frames.indices[-1]) == (2 * FPS, 6 * FPS)
    whole = read_frames(clip, FrameSampling(fps=4.0, max_pixels=SAMPLING.max_pixels))
    assert all((frames.pixels_TCHW[i] == whole.pixels_TCHW[index]).all() for i, index in enumerate(frames.indices))


@pytest.mark.parametrize("frames", [4, 16, 70, 768])
def test_a_video_stays_within_its_pixel_budget(frames):
    budget = 3584 * 28 * 28
    height, width = frame_size(360, 640, frames, FrameSampling(max_pixels=budget))
    tokens = frames // 2 * (height // 28) * (width // 28)
    assert height % 28 == width % 28 == 0
    assert tokens <= max(3584, frames // 2 * 5)  # at least 3136 pixels a frame


def test_unusable_videos_name_themselves(tmp_path, clip):
    broken, cut = tmp_path / "broken.mp4", tmp_path / "cut.mp4"
    broken.write_bytes(b"no video")
    cut.write_bytes(Path(clip).read_bytes()[:400])
    for path in (broken, cut, tmp_path / "missing.mp4"):
        with pytest.raises(VideoError, match=path.name):
            probe(path)
        with pytest.raises(VideoError, match=path.name):
            read_frames(str(path), SAMPLING)
    with pytest.raises(VideoError, match="cannot be sampled"):
        read_frames(clip, SAMPLING, crop=(5.0, 5.1))
