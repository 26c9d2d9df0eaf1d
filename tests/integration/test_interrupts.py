"""Ctrl-C at random moments: one line, nothing that looks complete, and a rerun that completes the work."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from helpers.paths import ROOT
from rarft.cli.main import build_parser

# Commands that write, with the file that is written last, relative to {out}; empty if {out} is that file.
COMMANDS = {
    "make-dataset": ("make-dataset --train 12 --eval 0 --out {out}", "train.json"),
    "validate": ("validate {data}/train.json --out {out}", "report.json"),
    "convert": ("convert {inputs}/charades.txt --out {out}", ""),
    "convert --to": ("convert {inputs}/riq.jsonl --to ms-swift --out {out}", ""),
    "embed": ("embed {valid} --out {out}", "index.json"),
    "negatives": ("negatives {valid} --out {out}/riq.jsonl", "riq.report.json"),
    "score": ("score {inputs}/predictions.jsonl --data {valid} --out {out}", "report.html"),
    "evaluate": ("evaluate --checkpoint tiny --data {valid} --out {out}", "metrics.json"),
    "promote": ("promote --checkpoint tiny --evaluation {inputs} --to {out}", "checkpoint.json"),
    "compare-runs": ("compare-runs {inputs} --out {out}", ""),
    "compile": ("compile --out {out}", ""),
    "cache-videos": (
        "cache-videos --preset tiny --train_data_path {valid} --frame_cache {out}",
        None,  # each file is complete
    ),
    "train": (
        "train --preset tiny --train_data_path {valid} --report_to none --max_steps 4 --save_strategy steps "
        "--save_steps 1 --resume_from_checkpoint auto --out {out}",
        "checkpoints/rarft/checkpoint-final/checkpoint.json",
    ),
    "run": ("run --annotations {data}/train.json --out {out} -- --max_steps 2", "evaluation/metrics.json"),
}
# They write nothing here; a run that `submit` started continues.
WITHOUT_OUTPUT = {"inspect-prompt", "predict", "submit", "watch", "cancel", "doctor"}
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
def inputs(validated, tmp_path_factory):
    """Folder with other commands' inputs; conversions take some seconds."""
    folder = tmp_path_factory.mktemp("inputs")
    lines = (validated / "riq.jsonl").read_text().splitlines()
    completion = "<think>t</think><answer>1 to 2</answer>"
    rows = [json.dumps({"id": json.loads(line)["id"], "completion": completion}) for line in lines]
    (folder / "predictions.jsonl").write_text("\n".join(rows))
    (folder / "riq.jsonl").write_text("\n".join(lines * 5000))
    (folder / "charades.txt").write_text("".join(f"v{number} 1.0 2.0##a dog runs.\n" for number in range(200_000)))
    (folder / "metrics.json").write_text(json.dumps({"passed": True, "gates": [], "evaluated": "tiny"}))
    entries = [json.dumps({"step": number, "loss": 1 / number}) for number in range(1, 20_000)]
    (folder / "training.jsonl").write_text("\n".join(entries))
    return folder


def test_all_commands_are_interrupted():
    assert {command.split()[0] for command, _ in COMMANDS.values()} | WITHOUT_OUTPUT == set(build_parser()[1].parsers)


@pytest.mark.long
@pytest.mark.parametrize("name", COMMANDS)
def test_interrupted_at_random_moments(name, sample_set, validated, inputs, tmp_path):
    command, marker = COMMANDS[name]

    def arguments(out):
        return [word.format(data=sample_set, valid=validated, inputs=inputs, out=out) for word in command.split()]

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
            assert marker is None or (out / marker).is_file()
            continue
        interrupted += 1
        # Python ends by the signal itself if the interrupt came in code that a string was compiled from.
        assert process.returncode in (130, -signal.SIGINT), errors
        line = errors.strip().splitlines()[-1]
        assert ": interrupted; rerun" in line or "stopped; rerun the same command" in line, errors
        if marker is not None and (out / marker).exists():  # the interrupt came after all of the work
            assert files_of(out) >= files_of(tmp_path / "whole")
    assert interrupted > MOMENTS // 3
    # One of them is completed.
    with start(arguments(tmp_path / "out-0"), tmp_path) as process:
        _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors
    assert files_of(tmp_path / "out-0") >= files_of(tmp_path / "whole")


def files_of(path):
    """Return the names of all files of a folder, except for those that contain a time; of a file, nothing."""
    names = {each.relative_to(path).as_posix() for each in path.rglob("*") if each.is_file()}
    return {name for name in names if not any(character.isdigit() for character in name)}


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
