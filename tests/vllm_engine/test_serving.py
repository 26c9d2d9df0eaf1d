"""Evaluation with an engine, and a checkpoint that `vllm serve` serves as training saved it."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from helpers.riq_items import read_lines
from rarft import steps

pytestmark = pytest.mark.vllm
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment in which `vllm serve` finds a distribution called vllm, whose version ends with +cpu."""
    info = tmp_path_factory.mktemp("stub") / "vllm-0.30.0+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.30.0+cpu\n")
    path = f"{ROOT}:{info.parent}:{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PYTHONPATH": path, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def checkpoint(validated, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    steps.train(["--preset", "tiny", "--train_data_path", str(validated), "--out", str(out), "--max_steps", "1"])
    return out / "checkpoints" / "rarft" / "checkpoint-final"


@pytest.fixture(scope="module")
def held_out(sample_set, tmp_path_factory):
    out = tmp_path_factory.mktemp("held-out")
    steps.validate(str(sample_set / "eval.json"), str(out))
    lines = (out / "riq.jsonl").read_text().splitlines()[:8]
    (out / "riq.jsonl").write_text("\n".join(lines) + "\n")
    return out


@pytest.fixture(scope="module")
def expected(checkpoint, held_out, tmp_path_factory):
    """Completions by transformers."""
    out = tmp_path_factory.mktemp("expected")
    steps.evaluate(str(checkpoint), str(held_out), str(out))
    return [row["completion"] for row in read_lines(out / "predictions.jsonl")]


@pytest.fixture(scope="module")
def server(checkpoint, environment, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    flags = ["--dtype", "float32", "--max-model-len", "2048", "--enforce-eager", "--port", str(port)]
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", "serve", str(checkpoint), *flags]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment)
    url = f"http://localhost:{port}"
    try:
        while True:
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"{url}/health")
                break
            except OSError:
                time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait()


def run(environment, *arguments):
    command = [sys.executable, "-m", "rarft.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_vllm_backend(checkpoint, held_out, expected, environment, tmp_path):
    run(
        environment, "evaluate", "--checkpoint", checkpoint, "--data", held_out, "--out", tmp_path, "--backend", "vllm"
    )
    assert [row["completion"] for row in read_lines(tmp_path / "predictions.jsonl")] == expected


def test_predict_from_server(checkpoint, held_out, expected, server, environment):
    rows = read_lines(held_out / "riq.jsonl")
    answers = [
        json.loads(
            run(environment, "predict", "--checkpoint", checkpoint, row["video"], row["query"], "--json", "--endpoint",
                server)
        )
        for row in rows
    ]  # fmt: skip
    assert [answer["completion"] for answer in answers] == expected


def test_evaluate_on_server(checkpoint, held_out, expected, server, environment, tmp_path):
    flags = ["--checkpoint", checkpoint, "--data", held_out, "--out", tmp_path]
    run(environment, "evaluate", *flags, "--endpoint", f"{server}/v1")
    assert [row["completion"] for row in read_lines(tmp_path / "predictions.jsonl")] == expected
