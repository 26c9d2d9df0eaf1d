"""Random argument lists: every command ends with an exit code and one line, never with a traceback."""

import json
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from helpers.paths import ROOT
from rarft.cli.main import build_parser


def environment_of(folder):
    store = {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "a" * 20,
        "AWS_SECRET_ACCESS_KEY": "b" * 20,
    }
    paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "XDG_CACHE_HOME": str(folder / "cache")}
    return {**os.environ, **store, **paths, "HF_HUB_OFFLINE": "1", "KUBECONFIG": "/dev/null"}


def run_random(validated, sample_set, folder, seed, count):
    shutil.copy(validated / "riq.jsonl", folder)
    shutil.copy(sample_set / "train.json", folder)
    done = subprocess.run(
        [sys.executable, "-m", "helpers.random_arguments", str(seed), str(count), str(folder)],
        cwd=folder,
        env=environment_of(folder),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("seed", "count"), [(0, 120), *(pytest.param(seed, 500, marks=pytest.mark.long) for seed in range(1, 11))]
)
def test_random_arguments(validated, sample_set, tmp_path, seed, count):
    results = run_random(validated, sample_set, tmp_path, seed, count)
    assert len(results) == count
    assert {arguments[0] for arguments, *_ in results} == set(build_parser()[1].parsers)
    problems = [(arguments, problem) for arguments, _, _, problem in results if problem]
    assert problems == []
    codes = [code for _, code, _, _ in results]
    assert codes.count(0) > count // 20  # some pass all checks
    assert codes.count(2) > count // 4


@pytest.mark.long
def test_random_arguments_in_processes(validated, sample_set, tmp_path):
    """Lists that the checks reject are rejected by the real program in the same way."""
    results = run_random(validated, sample_set, tmp_path, 99, 300)
    rejected = [(arguments, line) for arguments, code, line, _ in results if code == 2][:100]
    assert len(rejected) == 100

    def run(case):
        arguments, expected = case
        command = [sys.executable, "-m", "rarft.cli", *arguments]
        done = subprocess.run(
            [os.fsencode(word) for word in command],
            cwd=tmp_path,
            env=environment_of(tmp_path),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=300,
            check=False,
        )
        errors = done.stderr.decode(errors="replace")
        line = errors.strip().splitlines()[-1] if errors.strip() else ""
        if done.returncode == 2 and "Traceback" not in errors and line.startswith("rarft "):
            return None
        return arguments, expected, done.returncode, errors[-500:]

    with ThreadPoolExecutor(2) as pool:
        assert [failed for failed in pool.map(run, rejected) if failed] == []
