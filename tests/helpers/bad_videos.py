"""Files that are not usable videos, one of each kind."""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from helpers.timed_videos import write

_TICK = Fraction(1, 25)
KINDS = (
    "audio-only.mp4", "empty.mp4", "folder.mp4", "missing.mp4", "single-frame.mp4", "strip.mkv", "text.mp4",
    "truncated.mp4", "undecodable.mp4",
)  # fmt: skip


def make_bad_videos(folder: Path, good: Path) -> list[str]:
    """Write a file of each kind into a folder, from a good MP4 file; replaces existing files. Return their names."""
    content = good.read_bytes()
    for name in KINDS:
        if (folder / name).is_dir():
            (folder / name).rmdir()
        (folder / name).unlink(missing_ok=True)
    (folder / "empty.mp4").touch()
    (folder / "folder.mp4").mkdir()
    (folder / "text.mp4").write_text("<!DOCTYPE html><title>404 Not Found</title>")
    (folder / "truncated.mp4").write_bytes(content[:600])
    media = content.index(b"mdat") + 4
    end = media - 8 + int.from_bytes(content[media - 8 : media - 4], "big")
    noise = random.Random(0).randbytes(end - media)
    (folder / "undecodable.mp4").write_bytes(content[:media] + noise + content[end:])
    write(folder / "single-frame.mp4", [0], time_base=_TICK)
    write(folder / "strip.mkv", range(50), "ffv1", time_base=_TICK, size=(16, 4096))
    with av.open(str(folder / "audio-only.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 48_000
        for packet in (*stream.encode(frame), *stream.encode()):
            output.mux(packet)
    return list(KINDS)
