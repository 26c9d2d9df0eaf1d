"""Console logging, set up once per process by `rarft.errors.report_errors` and by the command line."""

import logging
import os
import sys
import traceback
from typing import TextIO

from rarft.redaction import redact

LOG_LEVEL_ENV = "RARFT_LOG_LEVEL"  # passes the level to child processes
_PACKAGES = ("rarft", "components", "pipelines", "benchmarks")


class _Formatter(logging.Formatter):
    """Format a record as `HH:MM:SS <package>: <message>`, with the level in front of warnings and errors.

    Records of a module that is in no subpackage, such as `rarft.progress`, have no `<package>: `. Of tracebacks that
    other libraries log, only the last line is shown, unless debug messages are.
    """

    def format(self, record: logging.LogRecord) -> str:
        names = record.name.split(".")
        if is_own := names[0] in _PACKAGES:
            names = names[1:-1]
        if is_own or not record.exc_info or logging.getLogger(_PACKAGES[0]).isEnabledFor(logging.DEBUG):
            text = super().format(record)
        else:
            text = f"{record.getMessage()} ({''.join(traceback.format_exception_only(record.exc_info[1])).strip()})"
        package = f"{names[0]}: " if names else ""
        level = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        return redact(f"{self.formatTime(record, '%H:%M:%S')} {package}{level}{text}")


class _ConsoleHandler(logging.StreamHandler[TextIO]):
    """Write to whatever `sys.stderr` is at that moment."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_Formatter())

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stderr
        super().emit(record)


def setup_logging(level: str | None = None) -> None:
    """Log to stderr, with other libraries' warnings in the same format. Calling this again changes the level only.

    Args:
        level: DEBUG, INFO, WARNING or ERROR, also for child processes; default: `RARFT_LOG_LEVEL`, then INFO.
    """
    if level is not None:
        os.environ[LOG_LEVEL_ENV] = level
    name = os.environ.get(LOG_LEVEL_ENV, "INFO").upper()
    for package in _PACKAGES:
        logging.getLogger(package).setLevel(name if name in logging.getLevelNamesMapping() else "INFO")
    root = logging.getLogger()
    if not any(isinstance(handler, _ConsoleHandler) for handler in root.handlers):
        root.addHandler(_ConsoleHandler())
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
