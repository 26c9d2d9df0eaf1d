"""Fixtures that several tests share: a small synthetic dataset, the packaged tiny model, and the command line."""

import functools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # tests download nothing
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="rarft-tests-")  # cache of video metadata

from helpers.riq_items import read_lines
from rarft import steps
from rarft.annotations.validate import ValidationSettings, validate
from rarft.logs import LOG_LEVEL_ENV
from rarft.storage.location import LocalFolder


@pytest.fixture(autouse=True)
def log_level(caplog, monkeypatch):
    """Let `caplog` see INFO lines; what a command sets is reset after each test."""
    monkeypatch.setenv(LOG_LEVEL_ENV, "INFO")
    for package in ("rarft", "components", "pipelines"):
        caplog.set_level("INFO", package)


@pytest.fixture(scope="session")
def sample_set(tmp_path_factory):
    """A synthetic dataset: train.json (8 videos), eval.json (4 videos), videos/."""
    folder = tmp_path_factory.mktemp("sample")
    steps.make_dataset(str(folder), {"train": 8, "eval": 4}, seed=3)
    return folder


@pytest.fixture(scope="session")
def validated(sample_set, tmp_path_factory):
    """The training split, validated."""
    out = tmp_path_factory.mktemp("validated")
    steps.validate(str(sample_set / "train.json"), str(out))
    return out


@pytest.fixture(scope="session")
def data_with_broken_video(validated, tmp_path_factory):
    """The validated training split with a truncated video, and the path of that video."""
    folder = tmp_path_factory.mktemp("broken")
    rows = read_lines(validated / "riq.jsonl")
    video, broken = rows[0]["video"], folder / "broken.mp4"
    broken.write_bytes(Path(video).read_bytes()[:600])
    lines = [json.dumps({**row, "video": str(broken) if row["video"] == video else row["video"]}) for row in rows]
    (folder / "riq.jsonl").write_text("\n".join(lines) + "\n")
    return folder, str(broken)


@pytest.fixture
def crashing_encoder(monkeypatch):
    """The default encoder, which crashes at the third batch of a store that is built in batches of two texts."""
    from rarft.embeddings import store
    from rarft.embeddings.encoder import default_encoder

    encoder, calls = default_encoder(), []
    original = encoder.encode

    def encode(batch):
        calls.append(len(batch))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(batch)

    monkeypatch.setattr(store, "_BATCH_SIZE", 2)
    monkeypatch.setattr(store, "_SAVE_INTERVAL_S", 0.0)
    monkeypatch.setattr(encoder, "encode", encode)
    return encoder


@pytest.fixture(scope="session")
def tiny():
    """The packaged tiny model in float32, and its processor. Tests must not change it."""
    import torch

    from rarft.models.qwen2_5_vl.load import load_model, load_processor

    return load_model("tiny", torch.float32).eval(), load_processor("tiny")


@pytest.fixture(scope="session")
def prompts(tiny, sample_set):
    """Two encoded prompts whose videos differ in length."""
    from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
    from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt

    model, processor = tiny
    encoder = PromptEncoder(processor, model.config, PromptConfig.load("tiny").sampling)
    encoded = [
        encoder.encode(video_prompt("", f"Find: a {color} ring slides", str(path)))
        for color, path in zip(["red", "blue"] * 4, sorted((sample_set / "videos").glob("train_*.mp4")), strict=True)
    ]
    first = encoded[0]
    other = next(prompt for prompt in encoded if prompt.input_ids_L.numel() != first.input_ids_L.numel())
    return [first, other]


@pytest.fixture
def main(capsys, monkeypatch, tmp_path):
    """Function that runs `rarft` in this process, in `tmp_path`; it returns (exit code, stdout, stderr)."""
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
    """Function that runs `rarft` in its own process; it returns the completed process."""

    def run(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "rarft.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)

    return run


@pytest.fixture(scope="session")
def compiled_profile(tmp_path_factory):
    """Function that returns the pipeline of a profile as YAML."""
    from pipelines.compile import compile_pipeline

    @functools.cache
    def compiled(profile):
        path = tmp_path_factory.mktemp("compiled") / "rarft.yaml"
        compile_pipeline(str(path), profile)
        return path.read_text()

    return compiled


@pytest.fixture
def compile_once(monkeypatch, compiled_profile):
    """Let `rarft submit` compile each profile only once."""
    from pipelines import submit

    monkeypatch.setattr(
        submit, "compile_pipeline", lambda out, profile: Path(out).write_text(compiled_profile(profile))
    )


@pytest.fixture(scope="session")
def forks():
    """Server of processes that are forked from one that has imported torch already."""
    from helpers.forkserver import ForkServer

    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def validate_items(tmp_path):
    """Function that validates items without opening videos; it returns the report, the samples and the quarantine."""

    def run(items, **options):
        source, out = tmp_path / "in.json", tmp_path / "out"
        source.write_text(items if isinstance(items, str) else json.dumps(items))
        report = validate(source, LocalFolder(out), None, ValidationSettings(**options))
        counts = report["counts"]
        assert counts["accepted"] + counts["repaired"] + counts["quarantined"] == counts["queries"]
        rows, quarantine = read_lines(out / "riq.jsonl"), read_lines(out / "quarantine.jsonl")
        assert (len(rows), len(quarantine)) == (counts["accepted"] + counts["repaired"], counts["quarantined"])
        written = json.loads((out / "report.json").read_text())
        assert {name: value for name, value in written.items() if name != "findings"} == report
        return written, rows, quarantine

    return run
