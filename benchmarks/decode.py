"""Time to read a video's sampled frames: `python benchmarks/decode.py [--rounds N]`.

Three files are made with FFmpeg: 20 s of 360p, 3 minutes of 720p and 10 minutes of 1080p; H.264 with B-frames and key
frames at most 250 frames apart. Each is read in these ways, with the default sampling and the same frame sizes:

- rarft: `rarft.video.read_frames`;
- linear: each frame is decoded from the start on one thread;
- torchcodec, decord: the readers of qwen-vl-utils, those that are installed. The files have a constant frame rate, so
  that their frames have the right times. They are read in chunks: qwen-vl-utils keeps all frames in their full size,
  19 GB of the last file.

In each round, each way runs once, in its own process. The table has the medians of wall and CPU seconds.
"""

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from qwen_vl_utils.vision_process import smart_nframes
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize

from rarft.video.decode import read_frames
from rarft.video.sampling import FrameSampling, frame_size

# Name: height, width, seconds of content, and how often it is repeated.
FILES = {
    "20 s of 360p": (360, 640, 20, 1),
    "3 min of 720p": (720, 1280, 20, 9),
    "10 min of 1080p": (1080, 1920, 20, 30),
}
FPS = 30
SAMPLING = FrameSampling()
THREADS = 8  # qwen-vl-utils' choice for torchcodec
CHUNK = 32  # frames


def make_video(path: Path, height: int, width: int, seconds: int, repeats: int) -> None:
    """Write a textured scene that pans and has moving objects and noise, repeated without encoding it again."""
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 256, (height // 8 + 60, width // 8 + 90, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    noise = rng.integers(0, 12, (4, height, width, 3), np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=FPS, options={"preset": "veryfast", "bf": "3", "crf": "23"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        packets = []
        for index in range(seconds * FPS):
            top, left = index % 400, 2 * index % 700
            pixels_HWC = scene[top : top + height, left : left + width] // 2 + 32 + noise[index % 4]
            x = 5 * index % (width - 80)
            pixels_HWC[height // 3 : height // 3 + 80, x : x + 80] = 230
            packets += stream.encode(av.VideoFrame.from_ndarray(pixels_HWC))
        packets += stream.encode()
        times = [(packet.pts, packet.dts) for packet in packets]
        ticks = round(seconds / stream.codec_context.time_base)
        for repeat in range(repeats):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                again = av.Packet(bytes(packet))
                again.stream, again.time_base = stream, stream.codec_context.time_base
                again.pts, again.dts = pts + repeat * ticks, dts + repeat * ticks
                again.is_keyframe = packet.is_keyframe
                output.mux(again)


def choose(total: int, height: int, width: int) -> tuple[list[int], list[int]]:
    """Return the indices of the sampled frames and their size, as qwen-vl-utils computes them."""
    count = smart_nframes({"fps": SAMPLING.fps}, total, FPS)
    indices: list[int] = torch.linspace(0, total - 1, count).round().long().tolist()
    return indices, list(frame_size(height, width, count, SAMPLING))


def scale(frames_TCHW: Tensor, size: list[int]) -> Tensor:
    """Resize frames as `read_frames` and qwen-vl-utils do."""
    return resize(frames_TCHW, size, InterpolationMode.BICUBIC, antialias=True)


def read_linearly(path: str) -> Tensor:
    """Decode each frame, and convert and resize the sampled ones."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        indices, size = choose(stream.frames, stream.height, stream.width)
        wanted, frames = set(indices), []
        for index, frame in enumerate(container.decode(stream)):
            if index in wanted:
                pixels_HWC = torch.from_numpy(frame.to_ndarray(format="rgb24", threads=1))
                frames.append(scale(pixels_HWC.permute(2, 0, 1), size))
    return torch.stack(frames)


def read_with_torchcodec(path: str) -> Tensor:
    """Read the sampled frames with torchcodec."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=THREADS)
    indices, size = choose(decoder.metadata.num_frames, decoder.metadata.height, decoder.metadata.width)
    chunks = (indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK))
    return torch.cat([scale(decoder.get_frames_at(chunk).data, size) for chunk in chunks])


def read_with_decord(path: str) -> Tensor:
    """Read the sampled frames with decord."""
    import decord

    decoder = decord.VideoReader(path)
    indices, size = choose(len(decoder), *decoder[0].shape[:2])
    chunks = (indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK))
    frames = (torch.from_numpy(decoder.get_batch(chunk).asnumpy()).permute(0, 3, 1, 2) for chunk in chunks)
    return torch.cat([scale(frames_TCHW, size) for frames_TCHW in frames])


WAYS: dict[str, Callable[[str], Tensor]] = {
    "rarft": lambda path: read_frames(path, SAMPLING).pixels_TCHW,
    "linear": read_linearly,
    "torchcodec": read_with_torchcodec,
    "decord": read_with_decord,
}


def measure(way: str, path: Path, saved: Path) -> None:
    """Print the wall and CPU seconds of reading a file, and save the frames."""
    WAYS[way](str(path.parent / "small.mp4"))  # imports and initializes everything
    wall, cpu = time.perf_counter(), time.process_time()
    frames_TCHW = WAYS[way](str(path))
    print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
    np.save(saved, frames_TCHW.numpy())


def compare(path: Path, ways: list[str], rounds: int) -> Iterator[str]:
    """Yield a cell of the table for each way."""
    results: dict[str, list[list[float]]] = {way: [] for way in ways}
    for _ in range(rounds):
        for way in ways:
            saved = path.with_name(f"{way}.npy")
            command = [sys.executable, __file__, "--measure", way, str(path), str(saved)]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            results[way].append(json.loads(output.splitlines()[-1]))
    expected_TCHW = np.load(path.with_name("rarft.npy")).astype(np.float32)
    for way in ways:
        wall, cpu = (statistics.median(column) for column in zip(*results[way], strict=True))
        frames_TCHW = np.load(path.with_name(f"{way}.npy")).astype(np.float32)
        difference = np.abs(frames_TCHW - expected_TCHW).mean(axis=(1, 2, 3)).max()
        yield f"{wall:.2f}, {cpu:.2f}" + (f" (pixels differ by {difference:.1f})" if difference > 0.5 else "")


def main() -> None:
    """Run all ways on all files, or one in this process."""
    parser = argparse.ArgumentParser(description="Time to read a video's sampled frames.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--files", nargs="*", default=list(FILES), choices=list(FILES), help="Files to read.")
    parser.add_argument("--measure", nargs=3, metavar=("WAY", "PATH", "SAVED"), help="Used by the benchmark itself.")
    options = parser.parse_args()
    if options.measure:
        way, path, saved = options.measure
        return measure(way, Path(path), Path(saved))
    ways = [way for way in WAYS if way in ("rarft", "linear") or importlib.util.find_spec(way)]
    print("| file | size | " + " | ".join(f"{way}: wall s, CPU s" for way in ways) + " |")
    print("|---|---|" + "---|" * len(ways))
    with tempfile.TemporaryDirectory() as folder:
        make_video(Path(folder) / "small.mp4", 120, 160, 2, 1)
        for name in options.files:
            path = Path(folder) / "video.mp4"
            make_video(path, *FILES[name])
            print(
                f"| {name} | {path.stat().st_size / 1e6:.0f} MB | "
                + " | ".join(compare(path, ways, options.rounds))
                + " |",
                flush=True,
            )


if __name__ == "__main__":
    main()
