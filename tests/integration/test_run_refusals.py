"""Refusals of `rarft run` at its start, before a step runs."""

import pytest

from pipelines import local
from rarft.storage.location import LocalFolder


@pytest.fixture
def no_steps(monkeypatch):
    """Fail if a step of the pipeline starts."""
    monkeypatch.setattr(local, "run_pipeline", lambda *_: pytest.fail("a step started"))


def test_run_in_use(main, no_steps, monkeypatch, sample_set, tmp_path):
    monkeypatch.setattr(local, "_LOCK_TIMEOUT_S", 0.0)
    out = LocalFolder(tmp_path / "o")
    out.make()
    with out.lock(0.0):
        code, _, errors = main("run", "--annotations", sample_set / "train.json", "--out", "o")
    assert code == 2
    assert f"--out {tmp_path / 'o'}: in use by another process" in errors.splitlines()[-1]


def test_run_that_ended_frees_the_folder(main, monkeypatch, sample_set):
    monkeypatch.setattr(local, "_LOCK_TIMEOUT_S", 0.0)

    def fail(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(local, "run_pipeline", fail)
    for _ in range(2):
        code, _, errors = main("run", "--annotations", sample_set / "train.json", "--out", "o")
        assert code == 1
        assert "ZeroDivisionError" in errors
