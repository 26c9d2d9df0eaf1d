"""The two ways a step ends badly, and how each is told to the user.

`InputError` is the user's to mend (exit code 2); any other exception is a failure of the work itself
(exit code 1). Either is told in one line; where a container runtime offers a termination log
(`RARFT_TERMINATION_LOG`, or Kubernetes' `/dev/termination-log`), the line is written there too, so that
whoever started the process sees the cause without reading its log.
"""

import difflib
import os
import re
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from rarft.logs import setup_logging

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_PREEMPTED = 75  # told to stop, and stopped with a complete checkpoint: start again to go on

# Set by a starter that reads the cause from there and tells it itself.
TERMINATION_LOG_ENV = "RARFT_TERMINATION_LOG"
_KUBERNETES_TERMINATION_LOG = "/dev/termination-log"
_STARTED = time.time()


class InputError(Exception):
    """Bad usage or bad input. The message is one line: `<path or value>: <what is wrong>; <what to do>`.

    Attributes:
        input_name: Name that the user knows the input by, such as a flag; it precedes the message.
    """

    input_name: str | None = None

    def __str__(self) -> str:
        return f"{self.input_name} {super().__str__()}" if self.input_name else super().__str__()


@contextmanager
def input_name(name: str) -> Iterator[None]:
    """Add the user's name for an input, such as `--data`, to every `InputError`; the innermost name is kept."""
    try:
        yield
    except InputError as error:
        error.input_name = error.input_name or name
        raise


class CheckFailedError(Exception):
    """The work was done and its result is not good enough for what the user asked: one line that says so."""


class DivergedError(Exception):
    """Training stopped because a loss, a gradient norm or weights were not finite: one line that says where."""


class ChildFailedError(Exception):
    """A process that this one started failed, and said why: its line."""


_WRITTEN_FOR_USERS = (InputError, CheckFailedError, DivergedError, ChildFailedError)


def one_line(error: BaseException) -> str:
    """The error as a single line, its type in front unless the message was written for the user."""
    text = " ".join(str(error).split())
    return text if isinstance(error, _WRITTEN_FOR_USERS) else f"{type(error).__name__}: {text}"


def termination_log() -> Path | None:
    """Where the cause of a failure is to be left for the one who started this process, if anywhere."""
    if path := os.environ.get(TERMINATION_LOG_ENV):
        return Path(path)
    return Path(_KUBERNETES_TERMINATION_LOG) if os.access(_KUBERNETES_TERMINATION_LOG, os.W_OK) else None


def _write_failure(log: Path, code: int, line: str) -> None:
    """Leave the cause. One that was left since this process started stays first: the first to fail knows it best."""
    stale = log.exists() and log.stat().st_mtime <= _STARTED
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if stale else 0)
    descriptor = os.open(log, flags, 0o644)
    try:
        os.write(descriptor, f"{code} {line}\n".encode())  # at once: two that fail together do not mix
    finally:
        os.close(descriptor)


def read_failure(log: Path) -> BaseException | None:
    """The cause that a failed process left in its termination log, as the error that it was; None without one."""
    if not log.exists() or not (text := log.read_text(encoding="utf-8").strip()):
        return None
    code, _, cause = text.splitlines()[0].partition(" ")
    return InputError(cause) if int(code) == EXIT_BAD_INPUT else ChildFailedError(cause)


@contextmanager
def report_errors(name: str) -> Iterator[None]:
    """Run a step; on failure print its one-line cause last, leave it in the termination log, and exit.

    Raises:
        SystemExit: with code 2 after an `InputError`, 1 after any other exception.
    """
    setup_logging()
    try:
        yield
    except Exception as error:
        code = EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED
        if not isinstance(error, _WRITTEN_FOR_USERS):
            traceback.print_exc()
        line = f"{name}: {one_line(error)}"
        if (log := termination_log()) is not None:
            _write_failure(log, code, line)
        if TERMINATION_LOG_ENV not in os.environ:
            print(f"rarft {line}", file=sys.stderr, flush=True)
        raise SystemExit(code) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the name that was perhaps meant, or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else ""


def suggest_flag(message: str, known: Iterable[str]) -> str:
    """What argparse's error about an unknown flag goes on with: the flag that was perhaps meant, or nothing."""
    unknown = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
    return did_you_mean(unknown[1], known) if unknown else ""
