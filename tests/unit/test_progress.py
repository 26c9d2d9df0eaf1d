"""Progress as log lines."""

import logging

import pytest

from rarft import progress as module
from rarft.progress import progress


def test_progress_logs_lines(caplog, monkeypatch):
    monkeypatch.setattr(module, "_LOG_INTERVAL_S", 0.0)
    caplog.set_level(logging.INFO, "rarft")
    assert list(progress([1, 2], "scoring", unit=" rows")) == [1, 2]
    assert list(progress(["a"], "scoring", unit=" rows")) == ["a"]
    assert caplog.messages[0].startswith("scoring: 1 of 2 rows, ")
    assert caplog.messages[0].endswith(" s left")
    assert [line.split(" in ")[0] for line in caplog.messages[1:]] == ["scoring: done, 2 rows", "scoring: done, 1 row"]


@pytest.mark.parametrize(("unit", "one"), [(" files", "1 file"), (" batches", "1 batch"), (" queries", "1 query")])
def test_progress_of_one_unit(caplog, unit, one):
    caplog.set_level(logging.INFO, "rarft")
    list(progress(["a"], "encoding", unit=unit))
    assert caplog.messages[0].startswith(f"encoding: done, {one} in ")


def test_progress_quiet(caplog):
    caplog.set_level(logging.WARNING, "rarft")
    assert list(progress(iter("ab"), "scoring")) == ["a", "b"]
    assert caplog.messages == []
