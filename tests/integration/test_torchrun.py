"""A step in several processes: its result, and the cause of a failure in one line."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from rarft import steps
from rarft.distributed.torchrun import run_step
from rarft.errors import ChildFailedError, InputError


def test_result_of_several_processes(sample_set):
    arguments = {"annotations": str(sample_set / "train.json")}
    alone = steps.fingerprint(**arguments)
    assert run_step("fingerprint", arguments, processes=1) == alone
    assert run_step("fingerprint", arguments, processes=2) == list(alone)  # JSON has no tuples


def test_input_error_is_not_retried(tmp_path):
    start = time.monotonic()
    with pytest.raises(InputError, match="no such file"):
        run_step("fingerprint", {"annotations": str(tmp_path / "missing.json")}, processes=2, restarts=50)
    assert time.monotonic() - start < 60  # fifty restarts take minutes


def test_bad_flag_ends_torchrun_at_once(tmp_path):
    """Without restarts of the ranks, as in the pods of a job."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    command = [*torchrun, "--max_restarts", "3", "-m", "rarft.cli", "train", "--preset=tiny"]
    log = tmp_path / "termination"
    environment = {**os.environ, "RARFT_TERMINATION_LOG": str(log)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    first, *others = log.read_text().splitlines()
    assert first.startswith("2 train: --train_data_path: is missing")
    assert len(others) <= 1
    assert "restart" not in done.stderr.lower().replace("max_restarts", "")


def test_cause_of_failure(tmp_path):
    (tmp_path / "riq.jsonl").write_text("")
    with pytest.raises(ChildFailedError, match=r"embed: TypeError: .*unexpected keyword"):
        run_step("embed", {"data": str(tmp_path), "out": str(tmp_path), "nonsense": 1}, processes=2)


RUN_ON_MAIN = """
from pathlib import Path
from accelerate import PartialState
from rarft.distributed.collectives import run_on_main
from rarft.errors import InputError, input_name

def fail():
    with input_name("--out"):
        raise InputError("a: cannot be written")

rank = PartialState(cpu=True).process_index
result = run_on_main(lambda: rank + 7)
try:
    run_on_main(fail)
except InputError as error:
    Path(f"{rank}.txt").write_text(f"{result} {error}")
"""


def test_run_on_main(forks, tmp_path):
    """Every process gets the result of the main process, or its error."""
    (tmp_path / "program.py").write_text(RUN_ON_MAIN)
    forks.run_ranks(2, [], tmp_path, tmp_path / "program.py")
    results = [(tmp_path / f"{rank}.txt").read_text() for rank in range(2)]
    assert results == ["7 --out a: cannot be written"] * 2


TRAINING = """
import sys
from rarft.errors import report_errors
from rarft.distributed.torchrun import run_step
with report_errors("train"):
    inputs = {"train_data_path": sys.argv[1], "max_steps": sys.argv[3], "deepspeed": "zero3", "save_steps": "2"}
    arguments = {"training": "preset: tiny", "inputs": inputs, "out": sys.argv[2]}
    checkpoint, base, _ = run_step("train_from_yaml", arguments, processes=2, restarts=3)
print(checkpoint, base)
"""


@pytest.fixture
def training(validated, tmp_path):
    """Start training on two ranks, and wait for its first step."""
    log, curves = tmp_path / "log", tmp_path / "checkpoints" / "rarft" / "training.jsonl"

    def start(max_steps):
        command = [sys.executable, "-c", TRAINING, str(validated), str(tmp_path), str(max_steps)]
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        while not (curves.exists() and '"reward"' in curves.read_text()):
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
        return process, log

    return start


@pytest.mark.long
def test_training_stops_on_sigterm(training, tmp_path):
    process, log = training(500)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=120) == 75, log.read_text()
    assert log.read_text().rstrip().endswith("stopped on SIGTERM")
    assert list((tmp_path / "checkpoints" / "rarft").glob("checkpoint-*/checkpoint.json"))


@pytest.mark.long
def test_training_restarts_after_lost_rank(training, tmp_path):
    process, log = training(6)
    children = psutil.Process(process.pid).children(recursive=True)
    next(child for child in children if child.environ().get("RANK") == "1").kill()
    assert process.wait(timeout=400) == 0, log.read_text()
    assert log.read_text().rstrip().endswith(f"{tmp_path}/checkpoints/rarft/checkpoint-final tiny")
