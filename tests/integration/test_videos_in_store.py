"""Videos in an S3 store: the frames of local files, and how many bytes of the object they take."""

from fractions import Fraction
from pathlib import Path

import av
import boto3
import numpy as np
import pytest

from helpers.s3_servers import KEYS, SERVERS, CuttingProxy, serving
from helpers.timed_videos import make_videos, write
from rarft.storage import object_file, s3
from rarft.storage.s3 import StoreError
from rarft.video import cache, probe, read_frames, reader
from rarft.video.clips import encode_clip
from rarft.video.decode import FrameSampling
from rarft.video.reader import VideoError, VideoReader

SAMPLING = FrameSampling(2.0, 400_000, 56 * 84)
TICK = Fraction(1, 25)
H264 = {"preset": "ultrafast", "qp": "20", "bf": "2", "g": "12"}


def frames_at(path, times):
    with VideoReader(path) as video:
        numbers = video.timeline.frames_at(np.array(times)).tolist()
        return [(number, pixels_HWC.tobytes()) for number, pixels_HWC in video.frames(numbers)]


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.long if name != "moto" else ()) for name in SERVERS]
)
def server(request, tmp_path_factory):
    with serving(request.param, tmp_path_factory.mktemp("objects")) as port:
        yield port


@pytest.fixture
def store(server, monkeypatch):
    """A proxy in front of the server, which has an empty bucket `videos`."""
    proxy = CuttingProxy(server, seed=0)
    monkeypatch.setattr(s3, "_READ_TIMEOUT_S", 2.0)
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}.items():
        monkeypatch.setenv(name, value)
    s3._client.cache_clear()
    if "videos" not in {bucket["Name"] for bucket in s3.client().list_buckets()["Buckets"]}:
        s3.client().create_bucket(Bucket="videos")
    yield proxy
    proxy.close()
    s3._client.cache_clear()


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory):
    """The same 60 seconds of noise with the index at the end, at the start, in fragments, and as Matroska."""
    folder = tmp_path_factory.mktemp("long")
    noise = np.random.default_rng(0)

    def noisy(pixels_HWC):
        return np.clip(pixels_HWC + noise.integers(-40, 40, pixels_HWC.shape), 0, 255).astype(np.uint8)

    write(folder / "end.mp4", range(1500), time_base=TICK, options=H264, size=(144, 252), store=noisy)
    flags = {"start.mp4": "faststart", "fragments.mp4": "frag_keyframe+empty_moov"}
    for name in ("start.mp4", "fragments.mp4", "all.mkv"):
        with (
            av.open(str(folder / "end.mp4")) as source,
            av.open(str(folder / name), "w", options={"movflags": flags[name]} if name in flags else {}) as copy,
        ):
            stream = copy.add_stream_from_template(source.streams.video[0])
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    copy.mux(packet)
    return folder


def upload(path):
    boto3.client("s3").upload_file(str(path), "videos", Path(path).name)
    return f"s3://videos/{Path(path).name}"


def same_frames(one, other):
    return (
        np.array_equal(one.pixels_TCHW, other.pixels_TCHW)
        and np.array_equal(one.timestamps_T, other.timestamps_T)
        and one.indices == other.indices
    )


def test_same_frames_as_local_files(store, tmp_path, monkeypatch):
    """All kinds of files, read in ranges where possible, in small blocks and with extents that are not merged."""
    monkeypatch.setattr(reader, "_MIN_RANGED_BYTES", 0)
    monkeypatch.setattr(object_file, "_BLOCK", 512)
    monkeypatch.setattr(object_file, "_MIN_FETCH", 2048)
    monkeypatch.setattr("rarft.video.mp4_object._MAX_GAP", 0)
    ranged = set()
    for video in make_videos(tmp_path):
        uri = upload(video.path)
        assert probe(uri) == probe(video.path), video.kind
        assert same_frames(read_frames(uri, SAMPLING), read_frames(video.path, SAMPLING)), video.kind
        assert encode_clip(uri) == encode_clip(video.path), video.kind
        with VideoReader(uri) as opened:
            ranged |= {video.kind} if not isinstance(opened._file, str) else set()
    assert {"b-frames", "variable", "hevc", "edit-list", "edit-list-joined", "rotate-270"} <= ranged
    assert not {"variable-mkv", "avi", "palette", "h263"} & ranged


@pytest.mark.parametrize(
    ("name", "codec", "arguments"),
    [
        ("vp9.mp4", "libvpx-vp9", {"options": {"b": "1000000", "deadline": "realtime", "g": "12"}}),
        ("av1.mp4", "libsvtav1", {"options": {"preset": "12", "svtav1-params": "keyint=12:lp=1"}}),
        ("mpeg4.mp4", "mpeg4", {"options": {"bf": "2", "g": "12"}}),
        ("open-gop.mp4", "libx264", {"options": {**H264, "x264-params": "open-gop=1:keyint=12:scenecut=0"}}),
        ("mjpeg.mov", "mjpeg", {"pix_fmt": "yuvj420p"}),
        ("prores.mov", "prores", {"pix_fmt": "yuv422p10le"}),
    ],
)
def test_codecs_read_in_ranges(store, tmp_path, monkeypatch, name, codec, arguments):
    monkeypatch.setattr(reader, "_MIN_RANGED_BYTES", 0)
    monkeypatch.setattr(object_file, "_BLOCK", 512)
    monkeypatch.setattr(object_file, "_MIN_FETCH", 512)
    write(tmp_path / name, range(80), codec, time_base=TICK, **arguments)
    uri = upload(tmp_path / name)
    assert probe(uri) == probe(str(tmp_path / name))
    with VideoReader(uri) as ranged, VideoReader(str(tmp_path / name)) as local:
        assert not isinstance(ranged._file, str)
        assert np.array_equal(ranged.timeline.times_N, local.timeline.times_N)
        for numbers in ([50], [11, 12, 13, 70], range(80)):
            frames, expected = dict(ranged.frames(numbers)), dict(local.frames(numbers))
            assert frames.keys() == expected.keys()
            assert all(np.array_equal(frames[number], expected[number]) for number in frames)


@pytest.mark.parametrize(
    ("action", "share"),
    [
        (probe, 0.05),
        (lambda path: frames_at(path, [10.0, 50.0]), 0.12),
        (lambda path: read_frames(path, SAMPLING, (30.0, 33.0)).pixels_TCHW.tolist(), 0.15),
        (lambda path: read_frames(path, FrameSampling(0.1), None).pixels_TCHW.tolist(), 0.3),
    ],
    ids=["probe", "two-frames", "crop", "few-frames"],
)
def test_part_of_long_file(store, long_videos, action, share):
    for name in ("end.mp4", "start.mp4"):
        uri = upload(long_videos / name)
        size = (long_videos / name).stat().st_size
        store.received = 0
        assert action(uri) == action(str(long_videos / name))
        assert store.received < share * size, f"{name}: {store.received} of {size} bytes"


@pytest.mark.parametrize("name", ["fragments.mp4", "all.mkv"])
def test_file_that_is_needed_whole(store, long_videos, name):
    """It is downloaded once for both passes."""
    uri = upload(long_videos / name)
    size = (long_videos / name).stat().st_size
    store.received = 0
    assert same_frames(read_frames(uri, SAMPLING), read_frames(str(long_videos / name), SAMPLING))
    assert size <= store.received < 1.05 * size


def test_small_file_in_one_request(store, long_videos, tmp_path):
    write(tmp_path / "short.mp4", range(50), time_base=TICK, options=H264)
    uri = upload(tmp_path / "short.mp4")
    store.received = 0
    read_frames(uri, SAMPLING)
    assert store.received < (tmp_path / "short.mp4").stat().st_size + 4000


def test_cut_connections(store, long_videos):
    uri = upload(long_videos / "end.mp4")
    expected = read_frames(str(long_videos / "end.mp4"), SAMPLING, (20.0, 23.0))
    store.share = 0.2
    for _ in range(100):
        s3._client.cache_clear()  # a connection that is open is not cut
        assert same_frames(read_frames(uri, SAMPLING, (20.0, 23.0)), expected)
        if store.cuts > 2:
            return
    raise AssertionError("too few cuts")


def test_unreachable_store(store, long_videos, monkeypatch):
    """An error of the store is not one of the video, wherever FFmpeg meets it."""
    monkeypatch.setattr(s3, "_REQUEST_ATTEMPTS", 1)
    monkeypatch.setattr(s3, "_TRANSFER_ATTEMPTS", 1)
    s3._client.cache_clear()
    uri = upload(long_videos / "end.mp4")
    with VideoReader(uri) as video:
        store.share = 1.0
        s3._client.cache_clear()
        with pytest.raises(StoreError, match=r"^s3://videos/end\.mp4: cannot be read"):
            dict(video.frames(range(600, 900)))


def test_changed_object(store, long_videos):
    uri = upload(long_videos / "end.mp4")
    with VideoReader(uri) as video:
        upload(long_videos / "start.mp4")
        boto3.client("s3").upload_file(str(long_videos / "start.mp4"), "videos", "end.mp4")
        with pytest.raises(StoreError, match=r"end\.mp4: cannot be read \(the object changed while it was read"):
            dict(video.frames([700]))


def result_of(path):
    """Return the frames of a video, or the reason why there are none."""
    try:
        frames = read_frames(path, SAMPLING)
    except VideoError as error:
        return str(error).removeprefix(path)
    return frames.pixels_TCHW.tolist(), frames.indices


def test_truncated_objects(store, long_videos, tmp_path):
    """They are read, or fail with the same message, as the local file."""
    for name in ("end.mp4", "start.mp4"):
        content = (long_videos / name).read_bytes()
        for length in (len(content) * 3 // 4, len(content) // 2, 100, 0):
            path = tmp_path / name
            path.write_bytes(content[:length])
            assert result_of(upload(path)) == result_of(str(path))


def test_missing_object(store, tmp_path):
    with pytest.raises(VideoError, match=r"^s3://videos/none\.mp4: cannot be read \(no such object"):
        probe("s3://videos/none.mp4")
    with pytest.raises(VideoError, match=r"^s3://videos/none\.mp4: cannot be read \(no such object"):
        cache.FrameCache(tmp_path, 1e6).read("s3://videos/none.mp4", SAMPLING)
