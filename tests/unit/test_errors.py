import os
import pickle
import subprocess
import sys

import pytest

from rarft.errors import InputError, input_name, one_line
from rarft.storage.s3 import StoreError


def test_input_name_innermost():
    with pytest.raises(StoreError, match=r"^--inner a: missing$") as raised:  # noqa: SIM117
        with input_name("--outer"), input_name("--inner"):
            raise StoreError("a: missing")
    assert one_line(raised.value) == str(pickle.loads(pickle.dumps(raised.value))) == "--inner a: missing"


def test_input_name_other_errors():
    with pytest.raises(ValueError, match=r"^a$"), input_name("--data"):
        raise ValueError("a")


def test_input_name_decorator():
    @input_name("--data")
    def fail():
        raise InputError("x: wrong")

    for _ in range(2):
        with pytest.raises(InputError, match=r"^--data x: wrong$"):
            fail()


def run(code, **environment):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout, done.stderr


def test_lines_are_one_write():
    """Lines of several processes in one pipe do not mix, with PYTHONUNBUFFERED either."""
    code = "from rarft.errors import report_errors\nwith report_errors('train'): raise {}"
    for error in ("KeyboardInterrupt", "OSError('a')"):
        read, write = os.pipe2(os.O_DIRECT)  # keeps the writes apart
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        subprocess.run([sys.executable, "-c", code.format(error)], stderr=write, env=environment, check=False)
        os.close(write)
        assert os.read(read, 4096).endswith(b"\n")
        assert os.read(read, 4096) == b""
        os.close(read)


LOG = """
import logging, sys
from rarft.logs import setup_logging
setup_logging({level}); setup_logging()
logger = logging.getLogger("rarft.training.train")
logger.debug("a"); logger.info("b \\ud800"); logger.warning("c")
logging.getLogger("other.library").info("d"); logging.getLogger("other.library").warning("e")
print("\\u2192")
"""
THIRD_PARTY_ERROR = """
import logging
from rarft.logs import setup_logging
setup_logging({level})
try:
    {{}}["key"]
except KeyError:
    logging.getLogger("other.library").exception("lookup failed")
"""


def test_setup_logging_format():
    out, err = run(LOG.format(level=""), PYTHONIOENCODING="ascii")
    assert out == "\\u2192\n"
    lines = [line.split(" ", 1)[1] for line in err.splitlines()]
    assert lines == ["training: b \\ud800", "training: WARNING: c", "other: WARNING: e"]


def test_tracebacks_of_libraries():
    """One line, and the traceback with --verbose."""
    lines = run(THIRD_PARTY_ERROR.format(level=""))[1].splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["other: ERROR: lookup failed (KeyError: 'key')"]
    assert "Traceback (most recent call last)" in run(THIRD_PARTY_ERROR.format(level="'DEBUG'"))[1]


@pytest.mark.parametrize(
    ("level", "environment", "messages"),
    [("'DEBUG'", "ERROR", "abce"), ("'WARNING'", "", "ce"), ("", "WARNING", "ce"), ("", "loud", "bce")],
)
def test_setup_logging_level(level, environment, messages):
    err = run(LOG.format(level=level), RARFT_LOG_LEVEL=environment, PYTHONIOENCODING="utf-8")[1]
    assert "".join(line.split(": ")[-1][0] for line in err.splitlines()) == messages
