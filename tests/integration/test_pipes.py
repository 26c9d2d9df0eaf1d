"""Annotations from a pipe, from standard input, and modules in the current folder that a library is named like."""

import gzip
import io
import os
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

from helpers.paths import ROOT


@pytest.fixture
def pipe(tmp_path):
    """Function that returns the path of a named pipe with some content."""

    def make(content):
        path = tmp_path / "pipe"
        os.mkfifo(path)
        threading.Thread(target=path.write_bytes, args=(content,), daemon=True).start()
        return path

    return make


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_validate_pipe(main, pipe, sample_set, tmp_path, compress):
    path = pipe(compress((sample_set / "train.json").read_bytes()))
    code, output, errors = main("validate", path, "--video-root", sample_set, "--out", "o")
    assert code == 0, errors
    assert "16 queries in 8 items: 16 accepted" in output
    assert (tmp_path / "o" / "riq.jsonl").read_text().count("\n") == 16


def test_validate_standard_input(main, monkeypatch, sample_set):
    content = io.BytesIO((sample_set / "train.json").read_bytes())
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=content))
    code, output, errors = main("validate", "-", "--probe", "none", "--out", "o")
    assert code == 0, errors
    assert "16 accepted" in output
    assert not content.closed


def test_validate_empty_standard_input(main, monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO()))
    code, _, errors = main("validate", "-", "--probe", "none", "--out", "o")
    assert code == 2
    assert "stdin: empty file" in errors


def test_validate_pipe_needs_video_root(main, pipe):
    code, _, errors = main("validate", pipe(b"[]"), "--out", "o")
    assert code == 2
    assert "--video-root required for annotations from a pipe" in errors


@pytest.mark.parametrize("command", ["--version", "validate"])
def test_modules_in_the_current_folder(tmp_path, sample_set, command):
    """They do not replace libraries, and rewards can still be imported from the folder."""
    for name in ("datasets", "yaml", "msgspec", "jinja2", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('the file in the current folder')")
    (tmp_path / "docker").mkdir()
    arguments = [command] if command == "--version" else [command, sample_set / "train.json", "--out", "o"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-m", "rarft.cli", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.long
def test_torchrun_next_to_modules(tmp_path):
    """As the documentation starts it: with the program `torchrun`, which is next to the interpreter."""
    (tmp_path / "datasets.py").write_text("raise ImportError('the file in the current folder')")
    (tmp_path / "docker").mkdir()
    torchrun = os.path.join(os.path.dirname(sys.executable), "torchrun")  # noqa: PTH118, PTH120
    done = subprocess.run(
        [torchrun, "--nproc_per_node", "1", "-m", "rarft.cli", "train", "--help"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "--train_data_path" in done.stdout
