"""Console output of a local run: its steps and their lines, without the output of Kubeflow's local runner."""

import io
import re
from typing import TextIO

_RUNNER_RECORD = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} - (\w+) - (.*)$")
_COLOR = re.compile(r"\x1b\[\d+m")
_STARTED = re.compile(r"Executing task '(.+)'")
_FINISHED = re.compile(r"(Task|Pipeline) '.+' finished with status")  # the step itself reports the reason
_CACHED = re.compile(r"Task (.+) cache hit ")
_INDENT = "    "  # the local runner indents the output of steps


class ConsoleFilter(io.TextIOBase):
    """Text stream that copies everything to a log file, and the steps and their output to the console."""

    def __init__(self, console: TextIO, log: TextIO, steps: int, quiet: bool = False) -> None:
        self._console, self._log, self._quiet = console, log, quiet
        self._steps, self._started = steps, 0
        self._partial_line = ""
        self._in_dump = False  # of the inputs or outputs of a step

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, text: str) -> int:
        """Write text to the log, and complete lines to the console."""
        self._log.write(text)
        self._log.flush()
        *lines, self._partial_line = (self._partial_line + text).split("\n")
        for line in lines:
            if (output := self._filter(_COLOR.sub("", line))) is not None:
                self._console.write(output + "\n")
                self._console.flush()
        return len(text)

    def _filter(self, line: str) -> str | None:
        """Return what to show for a line; None for nothing."""
        if (record := _RUNNER_RECORD.match(line)) is not None:
            return self._filter_record(*record.groups())
        if not line.startswith(_INDENT) or "[KFP Executor" in line:
            self._in_dump = "Got executor_input" in line
            return None
        if self._in_dump:
            self._in_dump = line != _INDENT + "}"
            return None
        return line.removeprefix(_INDENT).rstrip() if line.strip() else None

    def _filter_record(self, level: str, message: str) -> str | None:
        self._in_dump = message.endswith("outputs:")
        cached = _CACHED.match(message)
        if (started := cached or _STARTED.match(message)) is not None:
            self._started += 1
            suffix = ": unchanged, reusing the cached result" if cached else ""
            return None if self._quiet else f"[{self._started}/{self._steps}] {started[1]}{suffix}"
        return message if level == "ERROR" and not _FINISHED.search(message) else None
