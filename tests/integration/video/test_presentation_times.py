"""Frames by presentation time, from files of every kind."""

import random
from dataclasses import astuple

import av
import numpy as np
import pytest
import torch
from qwen_vl_utils.vision_process import calculate_video_frame_range, smart_nframes
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from helpers.timed_videos import HEIGHT, KINDS, WIDTH, stated_time
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt
from rarft.video import probe, read_frames
from rarft.video.cache import FrameCache
from rarft.video.clips import encode_clip
from rarft.video.reader import VideoError, VideoReader
from rarft.video.sampling import FrameSampling, frame_size
from rarft.video.timeline import Timeline, choose_frames, even_positions

READINGS = 200
SAMPLING = FrameSampling(4.0, 400_000, 56 * 84)
TURNED = {"rotate-90": 90, "rotate-180": 180, "rotate-270": 270, "mirrored": 0}
# Kinds that qwen-vl-utils reads correctly: constant frame rate, all packets presented, upright square pixels.
DEPARTURES = {*TURNED, "variable", "variable-mkv", "gap", "wide-pixels", "h263"}
PLAIN = [kind for kind in KINDS if kind not in DEPARTURES and "edit-list" not in kind]


def stated_times(frames):
    return [stated_time(pixels_CHW.permute(1, 2, 0).numpy()) for pixels_CHW in frames.pixels_TCHW]


def assert_states_times(video, frames):
    """Check that pixels state the timestamps, and that these are what is displayed at evenly spaced times."""
    times = frames.timestamps_T.tolist()
    for stated, time in zip(stated_times(frames), times, strict=True):
        assert stated is not None, f"{video.kind}: not an upright picture at {time}"
        assert abs(stated - time) < video.interval / 2, video.kind
    for position, time in zip(frames.indices, times, strict=True):
        seconds = position / frames.file_fps
        expected = {video.frame_at(seconds), video.frame_at(seconds + 1e-3)}  # containers round times
        assert any(abs(time - frame) < 1.1e-3 for frame in expected), f"{video.kind}: {time} at {seconds}"


def random_readings():
    rng = random.Random(0)
    for number in range(READINGS):
        pixels = rng.randint(56 * 84, 150 * 100)
        sampling = FrameSampling(rng.uniform(0.5, 12.0), rng.randint(40 * pixels, 400 * pixels), pixels)
        start = rng.uniform(0.0, 2.0)
        yield number, sampling, rng.choice([None, (start, start + rng.uniform(0.2, 4.0))])


def test_read_frames_random_readings(timed_videos):
    """Each returned frame is the one that the file presents at the sampled time, and states its timestamp."""
    assert len(timed_videos) >= 12
    videos = list(timed_videos.values())
    failures = []
    for number, sampling, crop in random_readings():
        video = videos[number % len(videos)]
        info = probe(video.path)
        try:
            frames = read_frames(video.path, sampling, crop)
        except VideoError as error:
            failures.append((video, crop, str(error)))
            continue
        assert_states_times(video, frames)
        count = len(frames.indices)
        if crop is None:
            assert count / frames.sample_fps == pytest.approx(info.duration)
        else:
            positions = np.array(frames.indices) / frames.file_fps
            assert crop[0] <= positions[0] < positions[-1] <= crop[1]
        assert frames.pixels_TCHW.shape[2:] == frame_size(info.height, info.width, count, sampling)
    assert len(failures) < READINGS // 6
    for video, crop, message in failures:
        assert "has fewer than 2 frames" in message, message
        assert video.path in message
        assert crop[1] - crop[0] < 2 * video.duration / len(video.times) or crop[1] > video.duration


@pytest.mark.parametrize("kind", KINDS)
def test_probe_kinds(timed_videos, kind):
    video, info = timed_videos[kind], probe(timed_videos[kind].path)
    assert info.frames == len(video.times)
    assert info.is_variable == (not video.constant)
    assert info.rotation == TURNED.get(kind, 0)
    if kind != "h263":
        assert (info.height, info.width) == (HEIGHT, WIDTH)
    if video.constant:
        assert info.duration == pytest.approx(video.duration)
    else:
        assert video.times[-1] < info.duration < video.times[-1] + 1.0
        assert info.fps == pytest.approx(info.frames / info.duration)


def test_probe_start_time(timed_videos):
    starts = {kind: probe(video.path).start_time for kind, video in timed_videos.items()}
    assert starts["offset"] == starts["edit-list-delayed"] == 600.0
    assert starts["negative"] == pytest.approx(-1.0, abs=0.02)
    assert starts["b-frames"] == starts["edit-list"] == 0.0


def read_as_qwen_vl_utils(path, sampling, crop):
    """Read frames by the rules of qwen-vl-utils: evenly spaced indices, in the order that frames are decoded in."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        fps = float(stream.average_rate or stream.guessed_rate)
    window = {} if crop is None else {"video_start": crop[0], "video_end": crop[1]}
    first, last, total = calculate_video_frame_range(window, len(decoded), fps)
    count = smart_nframes({"fps": sampling.fps}, total, fps)
    indices = torch.linspace(first, last, count).round().long().tolist()
    pixels_THWC = np.stack([decoded[index] for index in indices])
    size = frame_size(*pixels_THWC.shape[1:3], count, sampling)
    pixels_TCHW = torch.from_numpy(pixels_THWC).permute(0, 3, 1, 2)
    pixels_TCHW = resize(pixels_TCHW, list(size), InterpolationMode.BICUBIC, antialias=True)
    return pixels_TCHW, indices, count / total * fps


@pytest.mark.parametrize("kind", PLAIN)
def test_read_frames_equal_qwen_vl_utils(timed_videos, kind):
    """Files of constant frame rate give the frames and positions that qwen-vl-utils gives."""
    video = timed_videos[kind]
    for sampling in (SAMPLING, FrameSampling()):
        for crop in (None,) if len(video.times) == 2 else (None, (0.5, 2.2)):
            pixels_TCHW, indices, sample_fps = read_as_qwen_vl_utils(video.path, sampling, crop)
            frames = read_frames(video.path, sampling, crop)
            assert torch.equal(frames.pixels_TCHW, pixels_TCHW)
            assert frames.indices == indices
            assert frames.sample_fps == sample_fps
            assert frames.timestamps_T.tolist() == pytest.approx([video.times[index] for index in indices], abs=1e-3)


def test_choose_frames_equals_qwen_vl_utils():
    """Frame counts and indices, over random lengths, rates and crops."""
    rng = random.Random(0)
    for _ in range(3000):
        total, file_fps, fps = rng.randint(2, 60_000), rng.choice([24, 25, 30000 / 1001, 59.94]), rng.uniform(0.1, 9)
        timeline = Timeline.of(np.arange(total) / file_fps, file_fps, None, 1e-3)
        ends = sorted(rng.uniform(-1.0, total / file_fps + 1.0) for _ in range(2))
        crop = rng.choice([None, tuple(ends)])
        window = {} if crop is None else {"video_start": crop[0], "video_end": crop[1]}
        try:
            first, last, count_all = calculate_video_frame_range(window, total, file_fps)
            count = smart_nframes({"fps": fps}, count_all, file_fps)
        except ValueError:
            with pytest.raises(ValueError, match="frame"):
                choose_frames(timeline, fps, crop)
            continue
        choice = choose_frames(timeline, fps, crop)
        expected = torch.linspace(first, last, count).round().long().tolist()
        assert (choice.positions, choice.total) == (expected, count_all)
        assert choice.frames_T.tolist() == expected


def test_even_positions_long_videos():
    """Over 10,000 frames, float32 rounds torch's indices; so do ours."""
    rng = random.Random(1)
    for _ in range(2000):
        first, count = rng.randint(0, 1000), 2 * rng.randint(1, 384)
        last = rng.randint(first + count, 400_000)
        assert (
            even_positions(first, last, count).tolist() == torch.linspace(first, last, count).round().long().tolist()
        )


@pytest.mark.parametrize("kind", KINDS)
def test_frames_agree_everywhere(timed_videos, kind, tiny, tmp_path):
    """Training, evaluation and the frame cache use the same frames and positions."""
    video = timed_videos[kind]
    model, processor = tiny
    cache = FrameCache(tmp_path, 1e9)
    for crop in (None,) if kind == "two-frames" else (None, (0.4, 2.6)):
        frames = read_frames(video.path, SAMPLING, crop)
        messages = video_prompt("", "Find: x", video.path, crop)
        # Evaluation and training encode prompts; training through the frame cache if there is one.
        encoded = [
            PromptEncoder(processor, model.config, SAMPLING, reader, keep_frames=True).encode(messages)
            for reader in (read_frames, cache.read, cache.read)
        ]
        for prompt in encoded:
            assert torch.equal(prompt.frames.pixels_TCHW, frames.pixels_TCHW)
            assert torch.equal(prompt.frames.timestamps_T, frames.timestamps_T)
            assert astuple(prompt.frames)[2:] == astuple(frames)[2:]
            assert torch.equal(prompt.position_ids_3L, encoded[0].position_ids_3L)
            assert torch.equal(prompt.video_ND, encoded[0].video_ND)
    assert cache.hits == (1 if kind == "two-frames" else 2)


@pytest.mark.parametrize("kind", KINDS)
def test_clips_show_the_same_times(timed_videos, kind, tmp_path):
    """The small copies in a report are upright, as long as the video, and show its frames at their times."""
    video, clip = timed_videos[kind], tmp_path / "clip.mp4"
    clip.write_bytes(encode_clip(video.path))
    info, original = probe(str(clip)), probe(video.path)
    assert info.duration == pytest.approx(original.duration, abs=1 / info.fps)
    with VideoReader(str(clip)) as copy:
        for number, pixels_HWC in copy.frames(range(info.frames)):
            stated = stated_time(pixels_HWC)
            assert stated is not None, number
            expected = video.frame_at((number + 0.5) / info.fps)
            assert abs(stated - expected) < 1.1 * video.interval


def test_positions_of_variable_rate(timed_videos, tiny):
    """The time axis advances by the presentation duration per time step, not by the declared frame rate."""
    model, processor = tiny
    for kind in ("variable", "variable-mkv", "gap"):
        video = timed_videos[kind]
        prompt = PromptEncoder(processor, model.config, SAMPLING).encode(video_prompt("", "Find: x", video.path))
        frames = read_frames(video.path, SAMPLING)
        second_per_grid = 2 * probe(video.path).duration / len(frames.indices)
        time_L = prompt.position_ids_3L[0][prompt.input_ids_L == model.config.video_token_id]
        steps = time_L.unique()
        expected = (torch.arange(len(frames.indices) // 2) * second_per_grid * 2).long() + steps[0]
        assert steps.tolist() == expected.unique().tolist()


def test_frames_of_skipped_pictures(timed_videos):
    """Any subset of frames has the pixels that a decoder gives that reads everything."""
    rng = random.Random(0)
    for kind in KINDS:
        with VideoReader(timed_videos[kind].path) as video:
            count = len(video.timeline.times_N)
            every = {number: pixels_HWC.copy() for number, pixels_HWC in video.frames(range(count))}
            assert sorted(every) == list(range(count))
            for _ in range(4):
                numbers = set(rng.choices(range(count), k=rng.randint(1, 6)))
                decoded = dict(video.frames(numbers))
                assert set(decoded) == numbers
                for number, pixels_HWC in decoded.items():
                    assert np.array_equal(pixels_HWC, every[number]), f"{kind}, frame {number}"
