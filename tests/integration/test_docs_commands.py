"""Commands of three pages: run in their order, or only parsed if they need GPUs."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.paths import ROOT
from rarft.training.settings_parser import parse_settings

TEXT = "".join((ROOT / "docs" / name).read_text() for name in ("training.md", "evaluation.md", "serving.md")).replace(
    "\\\n", ""
)
BLOCKS = re.findall(r"^```bash( gpu)?\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
RUN = [line for gpu, block in BLOCKS if not gpu for line in block.strip().splitlines()]
PARSED = [line for gpu, block in BLOCKS if gpu for line in block.strip().splitlines() if " train " in line]


@pytest.mark.long
def test_commands_run(tmp_path, forks):
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    assert len(RUN) > 10
    for line in RUN:
        program, *arguments = shlex.split(line)
        if program == "rarft":
            code, output = forks.run(arguments, tmp_path, environment=environment)
        else:
            done = subprocess.run(
                [program, *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            code, output = done.returncode, done.stdout + done.stderr
        assert code == 0, f"{line}\n{output[-2000:]}"
    for name in ("rarft", "lora", "frozen", "own", "cached", "two"):
        assert (tmp_path / "checkpoints" / name / "checkpoint-final" / "rarft.json").exists()
        assert (tmp_path / "checkpoints" / name / "training.html").exists()


@pytest.mark.parametrize("line", PARSED)
def test_gpu_commands_parse(line, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    _, flags = line.split(" train ", 1)
    parse_settings([*shlex.split(flags), "--local_rank=0"])  # added by DeepSpeed's launcher
