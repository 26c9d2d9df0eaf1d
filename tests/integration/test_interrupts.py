"""Ctrl-C at random moments: one line, nothing that looks complete, and a rerun that completes the work."""

import os
import random
import signal
import subprocess
import sys
import time

import pytest

from helpers.paths import ROOT

# Commands with the file that is written last, relative to --out.
COMMANDS = {
    "make-dataset": (["make-dataset", "--train", "12", "--eval", "0"], "train.json"),
    "validate": (["validate", "{data}/train.json"], "report.json"),
    "embed": (["embed", "{valid}"], "index.json"),
    "score": (["score", "{predictions}", "--data", "{valid}"], "report.html"),
    "evaluate": (["evaluate", "--checkpoint", "tiny", "--data", "{valid}"], "metrics.json"),
    "train": (
        [
            *("train", "--preset", "tiny", "--train_data_path", "{valid}", "--report_to", "none", "--max_steps", "4"),
            *("--save_strategy", "steps", "--save_steps", "1", "--resume_from_checkpoint", "auto"),
        ],
        "checkpoints/rarft/checkpoint-final/checkpoint.json",
    ),
    "run": (["run", "--annotations", "{data}/train.json", "--", "--max_steps", "2"], "evaluation/metrics.json"),
}
MOMENTS = 10
_MIN_S = 0.5  # the interpreter has started


def start(arguments, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.Popen(
        [sys.executable, "-m", "rarft.cli", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture(scope="module")
def predictions(validated, tmp_path_factory):
    import json

    rows = [json.loads(line) for line in (validated / "riq.jsonl").read_text().splitlines()]
    file = tmp_path_factory.mktemp("predictions") / "predictions.jsonl"
    completion = "<think>t</think><answer>1 to 2</answer>"
    file.write_text("".join(json.dumps({"id": row["id"], "completion": completion}) + "\n" for row in rows))
    return file


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_interrupted_at_random_moments(name, sample_set, validated, predictions, tmp_path):
    words, marker = COMMANDS[name]
    words = [word.format(data=sample_set, valid=validated, predictions=predictions) for word in words]

    def arguments(out):
        end = words.index("--") if "--" in words else len(words)
        return [*words[:end], "--out", str(out), *words[end:]]

    begun = time.monotonic()
    with start(arguments(tmp_path / "whole"), tmp_path) as process:
        _, errors = process.communicate(timeout=900)
    duration = time.monotonic() - begun
    assert process.returncode == 0, errors
    rng, interrupted = random.Random(name), 0
    for number in range(MOMENTS):
        out = tmp_path / f"out-{number}"
        with start(arguments(out), tmp_path) as process:
            time.sleep(_MIN_S + rng.random() * max(0.5, duration - _MIN_S))
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            _, errors = process.communicate(timeout=120)
        assert "Traceback" not in errors, errors
        if process.returncode == 0:
            assert (out / marker).is_file()
            continue
        interrupted += 1
        # Python ends by the signal itself if the interrupt came in code that a string was compiled from.
        assert process.returncode in (130, -signal.SIGINT), errors
        line = errors.strip().splitlines()[-1]
        assert ": interrupted; rerun" in line or "stopped; rerun the same command" in line, errors
        assert not (out / marker).exists()
    assert interrupted > MOMENTS // 3
    # One of them is completed.
    with start(arguments(tmp_path / "out-0"), tmp_path) as process:
        _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert (tmp_path / "out-0" / marker).is_file()


def test_closed_output(sample_set, tmp_path):
    """`rarft validate ... | true`: no traceback."""
    command = [
        sys.executable,
        "-m",
        "rarft.cli",
        "validate",
        sample_set / "train.json",
        "--probe",
        "none",
        "--out",
        "o",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(command, cwd=tmp_path, env=environment, stdout=write, stderr=subprocess.PIPE, text=True)
    os.close(write)
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert done.returncode == 1
    assert (tmp_path / "o" / "report.json").is_file()
