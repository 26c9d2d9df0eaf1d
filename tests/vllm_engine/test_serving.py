"""Evaluation with an engine, and a checkpoint that `vllm serve` serves as training saved it."""

import json
import os
import re
import shlex
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
SERVE, PREDICT, EVALUATE = (
    shlex.split(line)
    for line in re.search(r"^```bash gpu\n(.*?)^```", (ROOT / "docs/serving.md").read_text(), re.DOTALL | re.MULTILINE)
    .group(1)
    .splitlines()
)


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """An environment in which `vllm serve` finds a distribution called vllm, whose version ends with +cpu."""
    info = tmp_path_factory.mktemp("stub") / "vllm-0.30.0+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: vllm\nVersion: 0.30.0+cpu\n")
    path = f"{ROOT}:{info.parent}:{os.environ.get('PYTHONPATH', '')}"
    return {**os.environ, "PYTHONPATH": path, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}


@pytest.fixture(scope="module")
def folder(validated, tmp_path_factory):
    """The current folder of the documented commands."""
    out = tmp_path_factory.mktemp("run")
    steps.train(["--preset", "tiny", "--train_data_path", str(validated), "--out", str(out), "--max_steps", "1"])
    return out


@pytest.fixture(scope="module")
def checkpoint(folder):
    return folder / "checkpoints" / "rarft" / "checkpoint-final"


@pytest.fixture(scope="module")
def held_out(sample_set, folder):
    out = folder / "out" / "eval"
    steps.validate(str(sample_set / "eval.json"), str(out))
    lines = (out / "riq.jsonl").read_text().splitlines()[:8]
    (out / "riq.jsonl").write_text("\n".join(lines) + "\n")
    return out


@pytest.fixture(scope="module")
def expected(checkpoint, held_out, tmp_path_factory):
    """Predictions by transformers."""
    out = tmp_path_factory.mktemp("expected")
    steps.evaluate(str(checkpoint), str(held_out), str(out))
    return read_lines(out / "predictions.jsonl")


def check_equal(found, expected):
    """Check that the completions are equal, and the refusal scores up to the precision of float32."""
    assert [row["completion"] for row in found] == [row["completion"] for row in expected]
    scores = [row["refusal_score"] for row in expected]
    assert all(0 < score < 1 for score in scores)
    assert [row["refusal_score"] for row in found] == pytest.approx(scores, rel=1e-3)


@pytest.fixture(scope="module")
def server(folder, checkpoint, environment):
    with socket.socket() as free:
        free.bind(("", 0))
        port = free.getsockname()[1]
    log = folder / "server.log"
    flags = ["--dtype", "float32", "--enforce-eager", "--port", str(port)]
    command = [sys.executable, "-m", "vllm.entrypoints.cli.main", *SERVE[1:], *flags]
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, env=environment, cwd=folder)
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


def run(folder, environment, *arguments):
    command = [sys.executable, "-m", "rarft.cli", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def on_server(command, server, **replaced):
    """Return the arguments of a documented command, for another server and with other values."""
    values = {"http://localhost:8000": server, **replaced}
    return [values.get(argument, argument) for argument in command[1:]]


def test_vllm_backend(folder, checkpoint, held_out, expected, environment, tmp_path):
    flags = ["--checkpoint", checkpoint, "--data", held_out, "--out", tmp_path, "--backend", "vllm", "--samples", "4"]
    run(folder, environment, "evaluate", *flags)
    rows = read_lines(tmp_path / "predictions.jsonl")
    check_equal(rows, expected)
    assert any(row.get("refusal_share") is not None for row in rows)


def test_predict_from_server(folder, held_out, expected, server, environment):
    rows = read_lines(held_out / "riq.jsonl")
    commands = [on_server(PREDICT, server, VIDEO=row["video"], QUERY=row["query"]) for row in rows]
    answers = [json.loads(run(folder, environment, *command, "--json")) for command in commands]
    assert [answer["completion"] for answer in answers] == [row["completion"] for row in expected]


def test_evaluate_on_server(folder, held_out, expected, server, environment):
    run(folder, environment, *on_server(EVALUATE, server))
    check_equal(read_lines(folder / "out" / "served" / "predictions.jsonl"), expected)
