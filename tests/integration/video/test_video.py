import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from qwen_vl_utils import vision_process

from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.synthetic.dataset import FPS, SIZE
from rarft.synthetic.pretrain.scenes import PROMPT_CONFIG
from rarft.training.config import frame_sampling
from rarft.training.settings_parser import parse_settings
from rarft.video.decode import read_frames
from rarft.video.reader import VideoError, probe
from rarft.video.sampling import MAX_FRAME_PIXELS, FrameSampling, frame_size

SAMPLING = FrameSampling(total_pixels=64 * 56 * 56, min_frame_pixels=56 * 56)


@pytest.fixture
def clip(sample_set):
    return str(sample_set / "videos" / "train_0000.mp4")


def test_two_frames_per_second(clip):
    info, frames = probe(clip), read_frames(clip, SAMPLING)
    count = round(info.duration * 2)
    assert tuple(frames.pixels_TCHW.shape) == (count, 3, SIZE, SIZE)
    assert (frames.indices[0], frames.indices[-1]) == (0, info.frames - 1)
    assert frames.sample_fps == pytest.approx(2.0)


def test_crop(clip):
    frames = read_frames(clip, SAMPLING, crop=(2.0, 6.0))
    assert (frames.indices[0], frames.indices[-1]) == (2 * FPS, 6 * FPS)
    uncropped = read_frames(clip, replace(SAMPLING, fps=4.0))
    assert all((frames.pixels_TCHW[i] == uncropped.pixels_TCHW[index]).all() for i, index in enumerate(frames.indices))


# Video tokens of the published code, by height, width and seconds at 2 frames per second.
REFERENCE_TOKENS = {
    (480, 640): {5: 1955, 30: 3240, 60: 2880, 120: 2880, 600: 4608},
    (480, 854): {5: 2550, 30: 3360, 60: 3000, 120: 3360, 600: 5760},
    (1080, 1920): {5: 3500, 30: 3360, 60: 3000, 120: 3360, 600: 5760},
    (56, 56): {5: 80, 30: 480, 60: 960, 120: 1920, 600: 6144},
}


@pytest.mark.parametrize("size", REFERENCE_TOKENS)
def test_video_tokens_reference(size):
    found = {}
    for seconds in REFERENCE_TOKENS[size]:
        frames = min(2 * seconds, 768)
        height, width = frame_size(*size, frames, FrameSampling())
        found[seconds] = frames // 2 * (height // 28) * (width // 28)
    assert found == REFERENCE_TOKENS[size]


def test_frame_size_equals_qwen_vl_utils(monkeypatch):
    """Compare with the library over random sizes, frame counts and budgets."""
    rng = random.Random(0)
    published = FrameSampling()
    assert (published.total_pixels, published.min_frame_pixels, MAX_FRAME_PIXELS) == (2_809_856, 12_544, 602_112)
    monkeypatch.setattr(vision_process, "get_video_reader_backend", lambda: "fake")
    for number in range(300):
        height, frames = rng.randint(28, 2200), 2 * rng.randint(1, 384)
        width = max(28, int(height * 6 ** rng.uniform(-1, 1)))
        sampling = published
        if number % 2:
            smallest = rng.randint(56 * 56 * 2, 100_000)
            sampling = FrameSampling(2.0, rng.randint(smallest, 20_000_000), smallest)
        empty = torch.empty(frames, 3, height, width, dtype=torch.uint8, device="meta")
        monkeypatch.setitem(vision_process.VIDEO_READER_BACKENDS, "fake", lambda _, empty=empty: (empty, {}, 2.0))
        budget = {"total_pixels": sampling.total_pixels, "min_pixels": sampling.min_frame_pixels}
        expected = vision_process.fetch_video({"video": "none.mp4", **budget}).shape[2:]
        assert frame_size(height, width, frames, sampling) == tuple(expected)


@pytest.mark.parametrize(("height", "width"), [(20, 5000), (100, 10_000), (1661, 32)])
def test_frame_size_of_strips(height, width):
    with pytest.raises(ValueError, match=r"aspect ratio|a side below 28 pixels"):
        frame_size(height, width, 768, FrameSampling())


def test_tiny_clips_keep_their_size():
    """Training, the packaged checkpoints and pretraining read the synthetic clips without resizing."""
    sampling = frame_sampling(parse_settings(["--preset", "tiny"]))
    for seconds in range(8, 17):
        assert frame_size(SIZE, SIZE, 2 * seconds, sampling) == (SIZE, SIZE)
    assert sampling == PROMPT_CONFIG.sampling == SAMPLING
    assert all(PromptConfig.load(name) == PROMPT_CONFIG for name in ("tiny", "tiny-truthful"))


@pytest.mark.parametrize(
    ("flags", "total"),
    [
        ([], 2_809_856),
        (["--max_pixels", "6422528"], 1_404_928),
        (["--max_pixels", "6422528", "--video_total_pixels", "50000"], 50_000),
        (["--max_pixels", "57344"], 12_544),
    ],
)
def test_pixel_budget_flags(flags, total):
    assert frame_sampling(parse_settings(flags)) == FrameSampling(2.0, total, 12_544)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--max_pixels", "57343"], "--max_pixels 57343: gives a video 12543 pixels, fewer than"),
        (["--video_total_pixels", "12543"], "--video_total_pixels 12543: gives a video 12543 pixels, fewer than"),
        (["--video_min_frame_pixels", "783"], "--video_min_frame_pixels 783: must be between 784 and 602112"),
        (["--video_min_frame_pixels", "602113"], "--video_min_frame_pixels 602113: must be between"),
        (["--video_fps", "0"], "--video_fps 0.0: must be"),
        (["--video_fps", "nan"], "--video_fps nan: must be"),
    ],
)
def test_pixel_budget_out_of_range(main, tmp_path, flags, message):
    for command in (["train", "--preset", "tiny"], ["cache-videos", "--frame_cache", "frames"]):
        if command[0] == "train":
            flags = ["--max_pixels", "12845056", "--video_min_frame_pixels", "12544", *flags]
        code, _, error = main(*command, "--train_data_path", "riq.jsonl", *flags)
        assert code == 2
        assert message in error
    assert list(tmp_path.iterdir()) == []


def test_errors_name_the_video(tmp_path, clip):
    broken, truncated = tmp_path / "broken.mp4", tmp_path / "truncated.mp4"
    broken.write_bytes(b"no video")
    truncated.write_bytes(Path(clip).read_bytes()[:400])
    for path in (broken, truncated, tmp_path / "missing.mp4"):
        with pytest.raises(VideoError, match=path.name):
            probe(str(path))
        with pytest.raises(VideoError, match=path.name):
            read_frames(str(path), SAMPLING)
    with pytest.raises(VideoError, match="cannot be sampled"):
        read_frames(clip, SAMPLING, crop=(5.0, 5.1))
