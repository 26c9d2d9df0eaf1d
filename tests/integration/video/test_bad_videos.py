"""Files that cannot be read, or only in part: a `VideoError` that names the file, or correct frames."""

import logging
import random
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helpers.timed_videos import picture, stated_time, write
from rarft.video import probe, read_frames, reader
from rarft.video.clips import encode_clip
from rarft.video.reader import VideoError, VideoReader
from rarft.video.sampling import FrameSampling

SAMPLING = FrameSampling(4.0, 400_000, 56 * 84)
TICK = Fraction(1, 25)
H264 = {"preset": "veryfast", "crf": "18", "bf": "2", "g": "12"}


def assert_readable(path, start=0.0):
    """Check that all frames that a file presents state their times, from `start` on; return its duration."""
    with VideoReader(str(path)) as video:
        times_N = video.timeline.times_N
        stated = {number: stated_time(pixels_HWC) for number, pixels_HWC in video.frames(range(len(times_N)))}
    assert [stated[number] - start for number in range(len(times_N))] == pytest.approx(times_N.tolist(), abs=0.02)
    read_frames(str(path), SAMPLING)
    return video.info.duration


def test_truncated_files(tmp_path):
    """The frames before the end are read, and the duration is theirs."""
    for name in ("a.mp4", "a.mkv", "a.ts", "a.avi"):
        path = tmp_path / name
        # AVI stores no presentation times: where B-frames are cut off, the last frame is labeled too early.
        options = {**H264, "bf": "0"} if name == "a.avi" else H264
        container = {"movflags": "faststart"} if name == "a.mp4" else {}
        write(path, range(100), time_base=TICK, options=options, container=container)
        content = path.read_bytes()
        path.write_bytes(content[: len(content) * 3 // 4])
        assert 1.5 < assert_readable(path) < 3.5


def test_file_that_starts_between_key_frames(tmp_path):
    write(tmp_path / "all.ts", range(100), time_base=TICK, options={**H264, "sc_threshold": "0"})
    content = (tmp_path / "all.ts").read_bytes()
    (tmp_path / "cut.ts").write_bytes(content[len(content) // 4 // 188 * 188 :])
    first = round(100 - probe(str(tmp_path / "cut.ts")).duration * 25)
    assert first > 12
    assert assert_readable(tmp_path / "cut.ts", first / 25) == pytest.approx((100 - first) / 25)


def test_joined_transport_streams(tmp_path):
    """Times that go backwards are not guessed."""
    write(tmp_path / "one.ts", range(50), time_base=TICK, options=H264)
    (tmp_path / "two.ts").write_bytes(2 * (tmp_path / "one.ts").read_bytes())
    with pytest.raises(VideoError, match=r"two\.ts: its frames have no usable presentation times; encode it again"):
        probe(str(tmp_path / "two.ts"))


@pytest.mark.parametrize(
    ("size", "sampling", "message"),
    [
        ((16, 4096), SAMPLING, r"frames of 4096x16 exceed the aspect ratio 200"),
        ((16, 2048), FrameSampling(4.0, 80_000, 784), r"cannot be sampled: frames of 2048x16 have a side below 28"),
        ((64, 112), FrameSampling(4.0, 4_000, 10), r"cannot be sampled: frames of 112x64 have a side below 28"),
    ],
)
def test_impossible_frame_sizes(tmp_path, size, sampling, message):
    path = tmp_path / "strip.mkv"
    write(path, range(50), "ffv1", time_base=TICK, size=size)
    with pytest.raises(VideoError, match=message) as error:
        read_frames(str(path), sampling)
    assert str(path) in str(error.value)


def test_single_frame(tmp_path):
    path = tmp_path / "one.mp4"
    write(path, [0], time_base=TICK, options=H264)
    assert (probe(str(path)).frames, probe(str(path)).duration) == (1, 0.04)
    with pytest.raises(VideoError, match=r"one\.mp4: cannot be sampled: it has 1 frame"):
        read_frames(str(path), SAMPLING)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(encode_clip(str(path)))
    assert probe(str(clip)).frames == 1


def test_file_without_video(tmp_path):
    path = str(tmp_path / "audio.mp4")
    with av.open(path, "w") as output:
        stream = output.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        for packet in (*stream.encode(frame), *stream.encode()):
            output.mux(packet)
    with pytest.raises(VideoError, match=r"audio\.mp4: has no video stream"):
        probe(path)


def test_damaged_files(timed_videos, tmp_path):
    """A file with wrong or missing bytes is read or raises a VideoError that names it; nothing else."""
    rng = random.Random(0)
    messages = []
    for video in list(timed_videos.values()) * 5:
        content = bytearray(Path(video.path).read_bytes())
        for _ in range(rng.randint(1, 8)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        if rng.random() < 0.3:
            content = content[: rng.randrange(len(content))]
        path = tmp_path / Path(video.path).name
        path.write_bytes(content)
        try:
            read_frames(str(path), SAMPLING)
            encode_clip(str(path))
            messages.append("")
        except VideoError as error:
            messages.append(str(error).replace(str(path), "FILE"))
    assert all(message == "" or message.startswith("FILE: ") for message in messages)
    assert 0 < messages.count("") < len(messages)


@pytest.mark.parametrize(("name", "value"), [("_MAX_KEPT_BYTES", 0), ("_PIXELS_PER_THREAD", 1.0), ("_MIN_SKIP", 0)])
def test_ways_of_reading_agree(timed_videos, monkeypatch, name, value):
    """Files that are too large to be kept in memory, several threads, and more restarts give the same frames."""
    rng = random.Random(0)
    for video in timed_videos.values():
        numbers = rng.choices(range(len(video.times)), k=4)
        with VideoReader(video.path) as opened:
            expected = dict(opened.frames(numbers))
        with monkeypatch.context() as patch:
            patch.setattr(reader, name, value)
            patch.setattr(reader.os, "cpu_count", lambda: 3)
            with VideoReader(video.path) as opened:
                frames = dict(opened.frames(numbers))
        assert frames.keys() == expected.keys()
        assert all(np.array_equal(frames[number], expected[number]) for number in frames), video.kind


def test_threads_that_log_do_not_block(timed_videos):
    """A decoder that is left early may log through Python while it is freed; in another process, since it may hang."""
    script = """
import logging, os, sys
import av
from rarft.video import reader
av.logging.set_level(av.logging.DEBUG)
logging.getLogger("libav").addHandler(logging.NullHandler())
reader._PIXELS_PER_THREAD, reader.os.cpu_count = 1.0, lambda: 4
for path in sys.argv[1:]:
    for number in range(8):
        with reader.VideoReader(path) as video:
            assert next(video.frames([number]))[0] == number
            assert [found for found, _ in video.frames([number])] == [number]
"""
    paths = [timed_videos[kind].path for kind in ("b-frames", "hevc", "avi-b-frames", "long-gop")]
    run = subprocess.run([sys.executable, "-c", script, *paths], timeout=60, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()[-2000:]


@pytest.mark.parametrize("matrix", [1, 5])  # BT.709, BT.601
@pytest.mark.parametrize("color_range", [1, 2])  # limited, full
def test_color_matrix_and_range(tmp_path, matrix, color_range):
    """Pixels are converted with the matrix and the range that the file declares."""
    luma, blue, red = 120, 90, 170
    path = str(tmp_path / "color.mkv")
    with av.open(path, "w") as output:
        stream = output.add_stream("libx264", rate=25, options={"qp": "0"})
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv444p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, color_range
        for _ in range(4):
            planes = np.stack([np.full((64, 64), value, np.uint8) for value in (luma, blue, red)])
            frame = av.VideoFrame.from_ndarray(planes, "yuv444p")
            frame.colorspace, frame.color_range = matrix, color_range
            output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with VideoReader(path) as video:
        (_, pixels_HWC), = video.frames([0])  # fmt: skip
    weight_red, weight_blue = (0.2126, 0.0722) if matrix == 1 else (0.299, 0.114)
    y, scale = ((luma - 16) / 219, 224) if color_range == 1 else (luma / 255, 255)
    r = y + 2 * (1 - weight_red) * (red - 128) / scale
    b = y + 2 * (1 - weight_blue) * (blue - 128) / scale
    g = (y - weight_red * r - weight_blue * b) / (1 - weight_red - weight_blue)
    assert pixels_HWC[32, 32] == pytest.approx(255 * np.clip([r, g, b], 0, 1), abs=3)


def test_hdr_is_reported_once(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(reader, "_reported_hdr", set())
    path = tmp_path / "hdr.mkv"

    def set_pq(stream):
        stream.codec_context.color_trc = 16

    options = {**H264, "x264-params": "transfer=smpte2084"}
    write(path, range(10), time_base=TICK, options=options, pix_fmt="yuv420p10le", setup=set_pq)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert read_frames(str(path), SAMPLING).pixels_TCHW.shape[0] == 4
    assert caplog.text.count("hdr.mkv: HDR (PQ) video; its frames are not tone mapped") == 1


def test_choice_and_decoder_without_torch():
    script = "import sys, rarft.video.reader, rarft.video.timeline; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_picture_of_another_time_is_rejected():
    """The pictures of the tests are not read as upright after turning or mirroring them."""
    pixels_HWC = picture(1234)
    assert stated_time(pixels_HWC) == 1.234
    assert {stated_time(pixels_HWC[::-1]), stated_time(pixels_HWC[:, ::-1])} == {None}
