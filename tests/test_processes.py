"""A step in several processes: the result of the first, and the cause of a failure in one line."""

import time

import pytest

from rarft import steps
from rarft.errors import ElsewhereError, InputError
from rarft.processes import run_step


def test_several_processes_give_what_one_does(sample_set):
    arguments = {"annotations": str(sample_set / "train.json")}
    alone = steps.fingerprint(**arguments)
    assert run_step("fingerprint", arguments, processes=1) == alone
    assert run_step("fingerprint", arguments, processes=2) == alone


def test_what_the_user_must_mend_is_told_at_once_and_not_tried_again(tmp_path):
    began = time.monotonic()
    with pytest.raises(InputError, match="no such file"):
        run_step("fingerprint", {"annotations": str(tmp_path / "missing.json")}, processes=2, restarts=50)
    assert time.monotonic() - began < 60  # fifty restarts take minutes


def test_a_failure_is_told_by_its_line(tmp_path):
    (tmp_path / "riq.jsonl").write_text("")
    with pytest.raises(ElsewhereError, match=r"embed: TypeError: .*unexpected keyword"):
        run_step("embed", {"data": str(tmp_path), "out": str(tmp_path), "nonsense": 1}, processes=2)
