"""The commands of docs/training.md and docs/evaluation.md: run as they stand there; where they need GPUs, parsed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.forkserver import ForkServer
from helpers.paths import ROOT
from rarft.training.config import parse

TEXT = "".join((ROOT / "docs" / name).read_text() for name in ("training.md", "evaluation.md"))
BLOCKS = re.findall(r"^```bash( gpu)?\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
RUN = [line for gpu, block in BLOCKS if not gpu for line in block.strip().splitlines()]
PARSED = [line for gpu, block in BLOCKS if gpu for line in block.strip().splitlines()]


@pytest.mark.long
def test_every_command_that_needs_no_gpu_works_in_its_order(tmp_path):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    assert len(RUN) > 10
    commands = ForkServer(tmp_path, environment)
    for line in RUN:
        program, *arguments = shlex.split(line)
        if program == "rarft":
            code, said = commands.run(arguments)
        else:
            done = subprocess.run(
                [program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            code, said = done.returncode, done.stdout + done.stderr
        assert code == 0, f"{line}\n{said[-2000:]}"
    commands.close()
    for name in ("rarft", "lora", "frozen", "own", "cached", "two"):
        assert (tmp_path / "checkpoints" / name / "checkpoint-final" / "rarft.json").exists()
        assert (tmp_path / "checkpoints" / name / "training.html").exists()


@pytest.mark.parametrize("line", PARSED)
def test_every_flag_of_a_command_for_gpus_is_one(line, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    _, flags = line.split(" train ", 1)
    parse([*shlex.split(flags), "--local_rank=0"])  # which DeepSpeed's launcher adds
