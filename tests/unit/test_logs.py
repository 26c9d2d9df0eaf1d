"""The format of log lines on the console."""

import logging
import re

import pytest

from rarft.logs import setup_logging


@pytest.mark.parametrize(
    ("name", "level", "line"),
    [
        ("rarft.training.callbacks.log", logging.INFO, "training: step 1"),
        ("components.evaluate.run", logging.WARNING, "evaluate: WARNING: step 1"),
        ("rarft.progress", logging.INFO, "step 1"),
        ("pipelines.local", logging.ERROR, "ERROR: step 1"),
        ("trl", logging.WARNING, "trl: WARNING: step 1"),
    ],
)
def test_console_line(capsys, name, level, line):
    setup_logging("INFO")
    logging.getLogger(name).log(level, "step %d", 1)
    assert re.sub(r"^\d\d:\d\d:\d\d ", "", capsys.readouterr().err) == f"{line}\n"


def test_quiet_line(capsys):
    setup_logging("WARNING")
    logging.getLogger("rarft.training.train").info("step 1")
    assert capsys.readouterr().err == ""
