"""Data of the tests with vLLM."""

import json

import av
import numpy as np
import pytest

from helpers.riq_items import read_lines


@pytest.fixture(scope="session")
def long_video(validated, tmp_path_factory):
    """Queries about one video of 21 seconds and 16,000 tokens."""
    folder = tmp_path_factory.mktemp("long")
    video = folder / "long.mp4"
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3), dtype=np.uint8)
    with av.open(video, "w") as file:
        stream = file.add_stream("libx264", rate=2)
        stream.width, stream.height, stream.pix_fmt = 896, 672, "yuv420p"
        for index in range(42):
            pixels = np.kron(np.roll(noise, index, 1), np.ones((56, 56, 1), np.uint8))
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        file.mux(stream.encode())
    rows = read_lines(validated / "riq.jsonl")[:2]
    lines = [json.dumps({**row, "video": str(video), "duration": 21.0, "video_file": None}) for row in rows]
    (folder / "riq.jsonl").write_text("\n".join(lines) + "\n")
    return folder
