"""Callbacks for log entries: the console, `training.jsonl`, and the curves in `training.html`."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rarft.reporting.training_curves import render_curves
from rarft.reporting.training_log import TRAINING_HTML, TRAINING_JSONL, parse_log
from rarft.storage.location import LocalFolder

logger = logging.getLogger(__name__)

_LINE_INTERVAL_S = 5.0  # between two lines on the console
_DRAW_INTERVAL_S = 10.0  # between two drawings of the curves
_METRICS = {"reward": "reward", "kl": "KL", "completion_length": "length"}


class ProgressCallback(TrainerCallback):
    """Logs step, metrics and times every few seconds, and at the last step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._start = self._last_line = time.monotonic()
        self._first_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Log a line, unless the last one is recent."""
        if not state.is_world_process_zero or not logs or "reward" not in logs:
            return
        now = time.monotonic()
        if now - self._last_line < _LINE_INTERVAL_S and state.global_step < state.max_steps:
            return
        self._last_line = now
        elapsed = now - self._start
        remaining = elapsed / max(1, state.global_step - self._first_step) * (state.max_steps - state.global_step)
        metrics = ", ".join(f"{name} {logs[key]:.3g}" for key, name in _METRICS.items() if logs.get(key) is not None)
        step = f"step {state.global_step}/{state.max_steps}"
        logger.info("%s, %s, %.0f s elapsed, %.0f s left", step, metrics, elapsed, remaining)


class JsonlLogCallback(TrainerCallback):
    """Appends every log entry to a file in a folder, and draws all entries while training runs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = LocalFolder(folder), name
        self._entries: list[dict[str, Any]] = []
        self._last_drawing = 0.0
        self.completions: dict[str, Any] | None = None  # a group of completions, for the next entry

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the log with the entries up to the step that the run resumes from."""
        if not state.is_world_process_zero:
            return
        if state.global_step and self._folder.exists(TRAINING_JSONL):
            entries = parse_log(self._folder.read(TRAINING_JSONL).decode())
            self._entries = [entry for entry in entries if entry["step"] <= state.global_step]
        self._folder.write(TRAINING_JSONL, "".join(json.dumps(entry) + "\n" for entry in self._entries).encode())

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append an entry, and draw the curves unless the last drawing is recent."""
        if not state.is_world_process_zero or not logs:
            return
        entry = {"step": state.global_step, **logs}
        if self.completions is not None:
            entry["completions"], self.completions = self.completions, None
        self._entries.append(entry)
        with (self._folder.path / TRAINING_JSONL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if time.monotonic() - self._last_drawing > _DRAW_INTERVAL_S:
            self._draw(state.max_steps)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw all entries."""
        if state.is_world_process_zero and self._entries:
            self._draw(state.max_steps)

    def _draw(self, max_steps: int) -> None:
        self._folder.write(TRAINING_HTML, render_curves(self._entries, self._name, max_steps).encode())
        self._last_drawing = time.monotonic()
