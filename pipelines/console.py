"""What a person sees of a local run: its steps and what they print, without the runner's bookkeeping.

Everything goes to a log file; of that the console shows the steps as they start, and their own lines.
"""

import io
import re
from typing import TextIO

_RECORD = re.compile(r"^\d\d:\d\d:\d\d\.\d{3} - (\w+) - (.*)$")
_COLOUR = re.compile(r"\x1b\[\d+m")
_STARTED = re.compile(r"Executing task '(.+)'")
_ENDED = re.compile(r"(Task|Pipeline) '.+' finished with status")  # the step's own line says why
_CACHED = re.compile(r"Task (.+) cache hit ")
_INDENT = "    "  # Kubeflow's local runner indents what a step prints


class ConsoleFilter(io.TextIOBase):
    """A text stream that copies every line to a log and the ones worth reading to the console."""

    def __init__(self, console: TextIO, log: TextIO, steps: int) -> None:
        """
        Args:
            console: where a person reads.
            log: gets everything.
            steps: how many steps the run has.
        """
        self._console, self._log = console, log
        self._steps, self._started = steps, 0
        self._line = ""
        self._in_dump = False  # of a step's inputs, or of its outputs

    def writable(self) -> bool:
        """It is."""
        return True

    def write(self, text: str) -> int:
        """Take text; whole lines are passed on."""
        self._log.write(text)
        self._log.flush()
        *lines, self._line = (self._line + text).split("\n")
        for line in lines:
            if (shown := self._shown(_COLOUR.sub("", line))) is not None:
                self._console.write(shown + "\n")
                self._console.flush()
        return len(text)

    def _shown(self, line: str) -> str | None:
        if (record := _RECORD.match(line)) is not None:
            level, message = record.groups()
            self._in_dump = message.endswith("outputs:")
            cached = _CACHED.match(message)
            if (started := cached or _STARTED.match(message)) is not None:
                self._started += 1
                before = ": nothing that it depends on has changed since it was done" if cached else ""
                return f"[{self._started}/{self._steps}] {started[1]}{before}"
            return message if level == "ERROR" and not _ENDED.search(message) else None
        if not line.startswith(_INDENT) or "[KFP Executor" in line:
            self._in_dump = "Got executor_input" in line
            return None
        if self._in_dump:
            self._in_dump = line != _INDENT + "}"
            return None
        return line.removeprefix(_INDENT).rstrip() if line.strip() else None
