"""Bytes and seconds to read parts of a long video in a store: `python benchmarks/video_ranges.py s3://BUCKET/PREFIX`.

Writes a 720p MP4 file of ten minutes with a key frame every two seconds and its index at the end, and uploads it. Then
reads it in ranges, as a downloaded file, and locally.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from unittest import mock

import av
import numpy as np

from rarft.storage import object_file, s3
from rarft.video import probe, read_frames, reader
from rarft.video.decode import FrameSampling
from rarft.video.reader import VideoReader


def read_frames_at(path: str, times: list[float]) -> None:
    """Decode the frames that are displayed at some times, in seconds."""
    with VideoReader(path) as video:
        list(video.frames(video.timeline.frames_at(np.array(times)).tolist()))


ACTIONS: dict[str, Callable[[str], object]] = {
    "properties": probe,
    "3 frames": lambda path: read_frames_at(path, [300.0, 305.0, 310.0]),
    "frames of a crop of 30 s": lambda path: read_frames(path, FrameSampling(), (290.0, 320.0)),
    "768 frames of the whole video": lambda path: read_frames(path, FrameSampling()),
}
SECONDS, REPEATS, FPS = 10, 60, 25


def write_video(path: Path) -> None:
    """Encode ten seconds of noise, and repeat its packets."""
    rng, rate = np.random.default_rng(0), Fraction(FPS)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=rate, options={"preset": "veryfast", "bf": "2", "g": "50"})
        stream.height, stream.width, stream.pix_fmt = 720, 1280, "yuv420p"
        packets = []
        for number in range(SECONDS * FPS):
            pixels_HWC = rng.integers(100, 125, (720, 1280, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels_HWC, "rgb24")
            frame.pts, frame.time_base = number, 1 / rate
            packets += stream.encode(frame)
        packets += stream.encode()
        for repeat in range(REPEATS):
            for packet in packets:
                copy = av.Packet(bytes(packet))
                copy.stream, copy.time_base, copy.is_keyframe = stream, packet.time_base, packet.is_keyframe
                shift = round(repeat * SECONDS / packet.time_base)
                copy.pts, copy.dts, copy.duration = packet.pts + shift, packet.dts + shift, packet.duration
                output.mux(copy)


def seconds(action: Callable[[str], object], path: str) -> float:
    """Return the wall seconds of an action."""
    start = time.perf_counter()
    action(path)
    return time.perf_counter() - start


def main() -> None:
    """Print a row per action."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("uri", help="Prefix in a store, such as s3://BUCKET/PREFIX; the environment names the store.")
    uri = f"{parser.parse_args().uri.rstrip('/')}/long.mp4"
    requested: list[int] = []

    def read_range(uri: str, start: int, stop: int, etag: str) -> bytes:
        requested.append(stop - start)
        return s3.read_range(uri, start, stop, etag)

    with tempfile.TemporaryDirectory() as folder, mock.patch.object(object_file, "read_range", read_range):
        path = Path(folder) / "long.mp4"
        write_video(path)
        s3.upload([(uri, path)])
        print(f"file of {path.stat().st_size / 1e6:.1f} MB", flush=True)
        for name, action in ACTIONS.items():
            requested.clear()
            ranges = seconds(action, uri)
            with mock.patch.object(reader, "_MIN_RANGED_BYTES", 2**62):
                downloaded = seconds(action, uri)
            print(
                f"{name:<30} {sum(requested) / 1e6:6.1f} MB in {len(requested)} ranges: {ranges:.2f} s; "
                f"downloaded: {downloaded:.2f} s; local: {seconds(action, str(path)):.2f} s",
                flush=True,
            )


if __name__ == "__main__":
    main()
