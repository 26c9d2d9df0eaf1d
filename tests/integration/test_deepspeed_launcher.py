"""DeepSpeed's launcher: its arguments, training by it, and ranks that end with it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from helpers.s3_servers import free_port

DEEPSPEED = Path(sys.executable).with_name("deepspeed")
TRAIN = (
    "train", "--preset", "tiny", "--deepspeed", "zero3", "--num_generations", "4",
    "--per_device_train_batch_size", "1", "--max_steps", "2",
)  # fmt: skip


@pytest.mark.parametrize("first", ["--local_rank=1", "--local-rank=1"])
def test_leading_local_rank_is_dropped(main, monkeypatch, first):
    monkeypatch.setenv("LOCAL_RANK", "1")
    code, _, error = main(first, "validate", "missing.json", "--out", "o")
    assert (code, error.count("missing.json: no such file")) == (2, 1)
    code, _, error = main(first, "train", "--preset", "tiny", "--beta", "high")
    assert (code, error.count("invalid float value: 'high'")) == (2, 1)


def test_leading_local_rank_without_a_launcher(main, monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    code, _, error = main("--local_rank=1", "validate", "missing.json", "--out", "o")
    assert (code, error.count("unrecognized arguments: --local-rank=1")) == (2, 1)


def _is_alive(process):
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # of a parent that has ended
    except psutil.NoSuchProcess:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' parent death signal")
@pytest.mark.parametrize(
    ("variable", "survives"), [("TORCHELASTIC_RUN_ID", False), ("CROSS_SIZE", False), ("OTHER", True)]
)
def test_rank_ends_with_killed_launcher(tmp_path, variable, survives):
    """A process that a launcher started ends with it; one that a shell started does not."""
    rank = (
        "import os, pathlib, time\n"
        "from rarft.distributed.launch import exit_with_parent\n"
        "exit_with_parent()\n"
        "pathlib.Path('part').write_text(str(os.getpid()))\n"
        "os.rename('part', 'pid')\n"
        "time.sleep(60)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"}
    launcher = subprocess.Popen(
        [sys.executable, "-c", f"import subprocess, sys; subprocess.run([sys.executable, '-c', {rank!r}])"],
        cwd=tmp_path, env={**environment, variable: "1"},
    )  # fmt: skip
    while not (tmp_path / "pid").exists():
        assert launcher.poll() is None
        time.sleep(0.1)
    started = psutil.Process(int((tmp_path / "pid").read_text()))
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    deadline = time.monotonic() + (1 if survives else 30)
    while (alive := _is_alive(started)) and time.monotonic() < deadline:
        time.sleep(0.1)
    if alive:
        started.kill()
    assert alive == survives


@pytest.mark.long
@pytest.mark.parametrize("hosts", [["localhost slots=2"], ["first slots=1", "second slots=1"]], ids=["one", "two"])
def test_training_by_hostfile(validated, tmp_path, hosts):
    """Two ranks of one machine, and two machines of one rank, started without ssh as in docs/training.md."""
    (tmp_path / "hostfile").write_text("\n".join(hosts) + "\n")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    port = str(free_port())
    nodes = [
        subprocess.Popen(
            [
                DEEPSPEED, "--hostfile=hostfile", "--no_ssh", "--node_rank", str(rank), "--master_addr", "127.0.0.1",
                "--master_port", port, "--module", "rarft.cli", *TRAIN, "--train_data_path", validated,
            ],
            cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(len(hosts))
    ]  # fmt: skip
    output = "".join(node.communicate()[0] for node in nodes)
    assert [node.returncode for node in nodes] == [0] * len(hosts), output[-6000:]
    assert output.count("checkpoint: checkpoints/rarft/checkpoint-final") == 1
    log = (tmp_path / "checkpoints" / "rarft" / "training.jsonl").read_text().splitlines()
    scored = [entry for entry in map(json.loads, log) if "reward" in entry]
    assert [entry["step"] for entry in scored] == [1, 2]
    assert json.loads((tmp_path / "checkpoints" / "rarft" / "checkpoint-final" / "rarft.json").read_text())
