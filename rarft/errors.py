"""Errors, exit codes, and how a step reports its failure.

An `InputError` is for the user to fix (exit code 2); any other exception means that the work failed (exit code 1).
Each is reported in one line on stderr. If there is a termination log (`RARFT_TERMINATION_LOG`, or Kubernetes'
`/dev/termination-log`), the line is written there too, so that the parent process or cluster can show the cause.
"""

import difflib
import os
import re
import select
import signal
import sys
import time
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from rarft.crash_log import write_crash_log
from rarft.logs import setup_logging
from rarft.redaction import redact

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130  # by Ctrl-C
EXIT_PREEMPTED = 75  # stopped on SIGTERM after a complete checkpoint; a rerun resumes

RESUME_HINT = "rerun the same command to continue"

# Set by a parent process that reads the cause from this file and reports it itself.
TERMINATION_LOG_ENV = "RARFT_TERMINATION_LOG"
_KUBERNETES_TERMINATION_LOG = "/dev/termination-log"
_START_TIME = time.time()


class InputError(Exception):
    """Bad usage or bad input. The message is one line: `<path or value>: <what is wrong>; <what to do>`."""

    input_name: str | None = None  # the user's name for the input, such as a flag; it precedes the message

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
    """The work is done, but its result does not pass a check that the user requested."""


class DivergedError(Exception):
    """Training stopped because a loss, a gradient norm or weights are not finite."""


class ChildFailedError(Exception):
    """A child process failed; the message is its own one-line cause."""


_USER_FACING = (InputError, CheckFailedError, DivergedError, ChildFailedError)


def one_line(error: BaseException) -> str:
    """Return an error as a single line, preceded by its type unless the message is written for users."""
    text = " ".join(redact(str(error)).split())
    return text if isinstance(error, _USER_FACING) else f"{type(error).__name__}: {text}"


def termination_log() -> Path | None:
    """Return the file in which the parent process or cluster looks for the cause of a failure, or None."""
    if path := os.environ.get(TERMINATION_LOG_ENV):
        return Path(path)
    return Path(_KUBERNETES_TERMINATION_LOG) if os.access(_KUBERNETES_TERMINATION_LOG, os.W_OK) else None


def _write_failure(log: Path, code: int, line: str) -> None:
    """Write a cause after those of processes that failed earlier in this run; the first one is the root cause."""
    stale = log.exists() and log.stat().st_mtime <= _START_TIME
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if stale else 0)
    descriptor = os.open(log, flags, 0o644)
    try:
        # One write, so that concurrent failures do not mix.
        os.write(descriptor, f"{code} {line}\n".encode("utf-8", "backslashreplace"))
    finally:
        os.close(descriptor)


def _stop_torchrun() -> None:
    """Stop torchrun if it started this process: after bad input, a restart would fail in the same way."""
    parent = os.getppid()
    with suppress(OSError):
        if "TORCHELASTIC_RUN_ID" in os.environ and b"torch" in Path(f"/proc/{parent}/cmdline").read_bytes():
            os.kill(parent, signal.SIGTERM)


def read_failure(log: Path) -> BaseException | None:
    """Return the first failure in a termination log as an exception; None without one."""
    if not log.exists() or not (text := log.read_text(encoding="utf-8").strip()):
        return None
    code, _, cause = text.splitlines()[0].partition(" ")
    return InputError(cause) if int(code) == EXIT_BAD_INPUT else ChildFailedError(cause)


def _print_line(text: str) -> None:
    """Print a line to stderr in one write, so that lines of several processes do not mix; `print` may take two."""
    if sys.stderr is not None:  # None if it was closed when the process started
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def exit_interrupted(program: str, resume: str = RESUME_HINT) -> NoReturn:
    """Print what to do after Ctrl-C, and exit."""
    _print_line(f"{program}: interrupted; {resume}")
    raise SystemExit(EXIT_INTERRUPTED) from None


def _discard_closed_stdout() -> bool:
    """Check whether nobody reads the output any more; then discard the rest of it."""
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    is_closed = any(event & select.POLLERR for _, event in output.poll(0))
    if is_closed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return is_closed


@contextmanager
def report_errors(name: str, resume: str = RESUME_HINT) -> Iterator[None]:
    """Set up logging and run a step or command; on failure print its one-line cause, also to the termination log.

    The traceback of an unexpected error goes to a log file. A process with a termination log prints it, because its
    parent process or cluster collects the output.

    Args:
        name: Name of the step or command.
        resume: What to do after Ctrl-C.

    Raises:
        SystemExit: Code 2 after an `InputError`, 130 after Ctrl-C, 1 after any other exception.
    """
    setup_logging()
    try:
        yield
        if sys.stdout is not None:  # None if it was closed when the process started
            sys.stdout.flush()
    except KeyboardInterrupt:
        exit_interrupted(f"rarft {name}", resume)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and _discard_closed_stdout():  # such as `rarft ... | head`
            raise SystemExit(EXIT_FAILED) from None
        code = EXIT_BAD_INPUT if isinstance(error, InputError) else EXIT_FAILED
        line, log = f"{name}: {one_line(error)}", termination_log()
        if not isinstance(error, _USER_FACING):
            if log is None and (crash_log := write_crash_log(name, error)) is not None:
                line = f"{line}; traceback: {crash_log}"
            else:
                _print_line(redact("".join(traceback.format_exception(error))))
        if log is not None:
            _write_failure(log, code, line)
        if TERMINATION_LOG_ENV not in os.environ:
            _print_line(f"rarft {line}")
        if code == EXIT_BAD_INPUT:
            _stop_torchrun()
        raise SystemExit(code) from None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a hint to append to a message about an unknown name: the most similar known name, or nothing."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else ""


def suggest_flag(message: str, known: Iterable[str]) -> str:
    """Return a hint to append to argparse's message about an unknown flag: the most similar flag, or nothing."""
    unknown = re.match(r"unrecognized arguments: (--[^\s=]+)", message)
    return did_you_mean(unknown[1], known) if unknown else ""
