"""The cache of decoded frames, and prompts encoded ahead of time."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rarft.models.qwen2_5_vl.prefetch import PromptPrefetcher
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt
from rarft.video import cache as cache_module
from rarft.video.cache import FrameCache
from rarft.video.decode import read_frames
from rarft.video.reader import VideoError
from rarft.video.sampling import FrameSampling

SAMPLING = FrameSampling(2.0, 200_704, 3136)


@pytest.fixture
def videos(sample_set):
    return sorted(str(path) for path in (sample_set / "videos").glob("train_*.mp4"))


def assert_same(left, right):
    assert torch.equal(left.pixels_TCHW, right.pixels_TCHW)
    assert torch.equal(left.timestamps_T, right.timestamps_T)
    assert (left.indices, left.file_fps, left.file_frames) == (right.indices, right.file_fps, right.file_frames)


def test_cached_frames_are_identical(videos, tmp_path, monkeypatch):
    first = FrameCache(tmp_path, 1e9)
    for crop in (None, (1.0, 4.0)):
        assert_same(first.read(videos[0], SAMPLING, crop), read_frames(videos[0], SAMPLING, crop))
    monkeypatch.setattr(cache_module, "read_frames", None)  # a second decoding would fail
    again = FrameCache(tmp_path, 1e9)
    for crop in (None, (1.0, 4.0)):
        assert_same(again.read(videos[0], SAMPLING, crop), read_frames(videos[0], SAMPLING, crop))
    assert (first.hits, again.hits) == (0, 2)


def test_key_is_content_and_sampling(videos, tmp_path):
    cache = FrameCache(tmp_path / "cache", 1e9)
    cache.read(videos[0], SAMPLING)
    moved = tmp_path / "moved.mp4"
    moved.write_bytes(Path(videos[0]).read_bytes())
    cache.read(str(moved), SAMPLING)
    assert cache.hits == 1
    moved.write_bytes(Path(videos[1]).read_bytes())  # another video under the same name
    assert_same(cache.read(str(moved), SAMPLING), read_frames(videos[1], SAMPLING))
    cache.read(videos[0], FrameSampling(1.0, 200_704, 3136))
    assert cache.hits == 1


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:5], lambda data: data[:90] + b"x" + data[91:]]
)
def test_corrupt_file_is_replaced(videos, tmp_path, damage):
    cache = FrameCache(tmp_path, 1e9)
    cache.read(videos[0], SAMPLING)
    (file,) = tmp_path.rglob("*.frames")
    valid = file.read_bytes()
    file.write_bytes(damage(valid))
    assert_same(cache.read(videos[0], SAMPLING), read_frames(videos[0], SAMPLING))
    assert (cache.hits, cache.corrupt) == (0, 1)
    assert file.read_bytes() == valid


@pytest.fixture
def half(videos, tmp_path):
    """Bytes that hold the frames of about half the videos."""
    cache = FrameCache(tmp_path / "measure", 1e9)
    for video in videos:
        cache.read(video, SAMPLING)
    return sum(file.stat().st_size for file in (tmp_path / "measure").rglob("*.frames")) / 2


def test_cache_smaller_than_data_hits(videos, half, tmp_path, caplog):
    """From the second epoch on, in any order, as many videos are found as the folder has space for."""
    cache = FrameCache(tmp_path / "cache", half)
    hits = []
    for order in (videos, videos[::-1], videos):
        before = cache.hits
        for video in order:
            assert_same(cache.read(video, SAMPLING), read_frames(video, SAMPLING))
        hits.append(cache.hits - before)
    stored = [file.stat().st_size for file in (tmp_path / "cache").rglob("*.frames")]
    assert sum(stored) <= half
    assert hits == [0, len(stored), len(stored)]
    assert len(stored) >= len(videos) // 2 - 1
    assert cache.not_stored == 3 * len(videos) - sum(hits) - len(stored)
    assert caplog.text.count("increase --frame_cache_gb") == 1


def test_cache_replaces_files_of_other_runs(videos, half, tmp_path):
    """Files that this run does not use give way to its own, the least recently used first."""
    previous = FrameCache(tmp_path / "cache", half)
    for video in videos:
        previous.read(video, replace(SAMPLING, fps=1.9))
    for age, file in enumerate((tmp_path / "cache").rglob("*.frames")):
        os.utime(file, (age, age))
    cache = FrameCache(tmp_path / "cache", half)
    for _ in range(2):
        for video in videos:
            cache.read(video, SAMPLING)
    assert cache.hits >= len(videos) // 2 - 1
    assert sum(file.stat().st_size for file in (tmp_path / "cache").rglob("*.frames")) <= half


def test_concurrent_readers(videos, tmp_path):
    caches = [FrameCache(tmp_path, 4e5) for _ in range(4)]

    def read(number):
        return caches[number % 4].read(videos[number % len(videos)], SAMPLING)

    with ThreadPoolExecutor(4) as pool:
        for number, frames in enumerate(pool.map(read, range(40))):
            assert_same(frames, read_frames(videos[number % len(videos)], SAMPLING))
    assert sum(cache.corrupt for cache in caches) == 0


def test_unwritable_folder(videos, tmp_path, monkeypatch):
    cache = FrameCache(tmp_path, 1e9)

    def full(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.tempfile, "mkstemp", full)
    assert_same(cache.read(videos[0], SAMPLING), read_frames(videos[0], SAMPLING))
    assert cache.write_errors == 1


@pytest.fixture
def encoder(tiny):
    model, processor = tiny
    return PromptEncoder(processor, model.config, PromptConfig.load("tiny").sampling)


def test_prefetched_prompts_are_encoded_once_in_threads(encoder, videos, monkeypatch):
    seen = []
    original = encoder.encode
    monkeypatch.setattr(
        encoder, "encode", lambda messages: seen.append(threading.current_thread().name) or original(messages)
    )
    prefetcher = PromptPrefetcher(encoder, workers=2, max_prompts=4)
    prompts = [video_prompt("", f"Find: {name}", name) for name in videos[:3]]
    for prompt in prompts:
        prefetcher.prefetch(prompt)
        prefetcher.prefetch(prompt)
    for prompt in prompts:
        taken, expected = prefetcher.get(prompt), original(prompt)
        for name in ("input_ids_L", "position_ids_3L", "video_ND", "grid_thw_13"):
            assert torch.equal(getattr(taken, name), getattr(expected, name))
        prefetcher.prefetch(prompt)  # for another step with the same completions
    assert len(seen) == 3
    assert all(name.startswith("rarft-decode") for name in seen)
    prefetcher.get(prompts[0])  # not prefetched: encoded immediately
    assert seen[3] == threading.current_thread().name


def test_prefetch_error_is_raised_by_get(encoder, tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    for workers in (0, 1):
        prefetcher = PromptPrefetcher(encoder, workers, max_prompts=2)
        prefetcher.prefetch(video_prompt("", "Find: x", str(broken)))
        with pytest.raises(VideoError, match=r"broken\.mp4"):
            prefetcher.get(video_prompt("", "Find: x", str(broken)))
