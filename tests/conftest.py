"""What several tests share: a small synthetic data set, and the packaged tiny model."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # nothing here is to be fetched
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="rarft-tests-")  # what is remembered of videos

from helpers.riq_items import read_lines
from rarft import steps
from rarft.annotations.validate import ValidationSettings, validate
from rarft.logs import LOG_LEVEL_ENV


@pytest.fixture(autouse=True)
def log_level(caplog, monkeypatch):
    """Let `caplog` see INFO lines; what a command sets is reset after each test."""
    monkeypatch.setenv(LOG_LEVEL_ENV, "INFO")
    for package in ("rarft", "components", "pipelines"):
        caplog.set_level("INFO", package)


@pytest.fixture(scope="session")
def sample_set(tmp_path_factory):
    """A synthetic data set: train.json (8 videos), eval.json (4 videos), videos/."""
    folder = tmp_path_factory.mktemp("sample")
    steps.sample(str(folder), {"train": 8, "eval": 4}, seed=3)
    return folder


@pytest.fixture(scope="session")
def validated(sample_set, tmp_path_factory):
    """The training split, validated."""
    out = tmp_path_factory.mktemp("validated")
    steps.validate(str(sample_set / "train.json"), str(out))
    return out


@pytest.fixture(scope="session")
def with_a_broken_video(validated, tmp_path_factory):
    """The training split, one of its videos cut off after validation; and that video's path."""
    folder = tmp_path_factory.mktemp("broken")
    rows = read_lines(validated / "riq.jsonl")
    video, broken = rows[0]["video"], folder / "broken.mp4"
    broken.write_bytes(Path(video).read_bytes()[:600])
    lines = [json.dumps({**row, "video": str(broken) if row["video"] == video else row["video"]}) for row in rows]
    (folder / "riq.jsonl").write_text("\n".join(lines) + "\n")
    return folder, str(broken)


@pytest.fixture
def dying_encoder(monkeypatch):
    """The default encoder; building a store in batches of two texts, it is killed at the third."""
    from rarft.embeddings import build
    from rarft.embeddings.encoder import default_encoder

    encoder, calls = default_encoder(), []
    original = encoder.encode

    def dies_at_the_third_batch(batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(batch)

    monkeypatch.setattr(build, "_BATCH", 2)
    monkeypatch.setattr(build, "_SAVE_EVERY", 0.0)
    monkeypatch.setattr(encoder, "encode", dies_at_the_third_batch)
    return encoder


@pytest.fixture(scope="session")
def tiny():
    """The packaged tiny checkpoint: (model, processor), float32, in evaluation mode."""
    import torch

    from rarft.models.qwen2_5_vl.load import load_model, load_processor

    return load_model("tiny", "model", torch.float32).eval(), load_processor("tiny", "model")


@pytest.fixture(scope="session")
def prompts(tiny, sample_set):
    """Two encoded prompts whose videos differ in length."""
    from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
    from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt

    model, processor = tiny
    encoder = PromptEncoder(processor, model.config, PromptConfig.of("tiny").sampling)
    encoded = [
        encoder.encode(video_prompt("", f"Find: a {colour} ring slides", str(path)))
        for colour, path in zip(["red", "blue"] * 4, sorted((sample_set / "videos").glob("train_*.mp4")), strict=True)
    ]
    first = encoded[0]
    other = next(prompt for prompt in encoded if prompt.input_ids_L.numel() != first.input_ids_L.numel())
    return [first, other]


@pytest.fixture
def main(capsys, monkeypatch, tmp_path):
    """Run `rarft` in this process, in `tmp_path`; returns (exit code, stdout, stderr)."""
    from rarft.cli.main import main as entry_point

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        capsys.readouterr()
        code = 0
        try:
            entry_point([str(argument) for argument in arguments])
        except SystemExit as ended:
            code = int(ended.code or 0)
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def cli():
    """Run `rarft` in a process of its own; returns the completed process."""

    def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rarft.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)

    return run


@pytest.fixture
def check(tmp_path):
    """Validate items without looking at videos; returns the report, the samples and the quarantine."""

    def run(items, **options):
        source, out = tmp_path / "in.json", tmp_path / "out"
        source.write_text(items if isinstance(items, str) else json.dumps(items))
        report = validate(source, out, None, ValidationSettings(**{"probe_videos": False, **options}))
        counts = report["counts"]
        assert counts["accepted"] + counts["repaired"] + counts["quarantined"] == counts["queries"]
        rows, quarantine = read_lines(out / "riq.jsonl"), read_lines(out / "quarantine.jsonl")
        assert (len(rows), len(quarantine)) == (counts["accepted"] + counts["repaired"], counts["quarantined"])
        written = json.loads((out / "report.json").read_text())
        assert {name: value for name, value in written.items() if name != "findings"} == report
        return written, rows, quarantine

    return run
