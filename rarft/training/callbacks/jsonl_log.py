"""Log of a training run: its entries in `training.jsonl`, and its curves in `training.html`."""

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from rarft.reporting.training_curves import render_curves
from rarft.reporting.training_log import TRAINING_HTML, TRAINING_JSONL, parse_log
from rarft.storage.files import write_atomically

_DRAW_INTERVAL_S = 10.0  # between two drawings of the curves


class JsonlLogCallback(TrainerCallback):
    """Appends every log entry to a file, and draws all entries while training runs."""

    def __init__(self, folder: Path, name: str) -> None:
        """
        Args:
            folder: Folder for both files.
            name: Name of the run.
        """
        self._folder, self._name = folder, name
        self._entries: list[dict[str, Any]] = []
        self._last_drawing = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the log with the entries up to the step that the run resumes from."""
        if not state.is_world_process_zero:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        log = self._folder / TRAINING_JSONL
        if state.global_step and log.exists():
            entries = parse_log(log.read_text(encoding="utf-8"))
            self._entries = [entry for entry in entries if entry["step"] <= state.global_step]
        with write_atomically(log) as temporary:
            temporary.write_text("".join(json.dumps(entry) + "\n" for entry in self._entries), encoding="utf-8")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append an entry, and draw the curves unless the last drawing is recent."""
        if not state.is_world_process_zero or not logs:
            return
        entry = {"step": state.global_step, **logs}
        self._entries.append(entry)
        with (self._folder / TRAINING_JSONL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if time.monotonic() - self._last_drawing > _DRAW_INTERVAL_S:
            self._draw(state.max_steps)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw all entries."""
        if state.is_world_process_zero and self._entries:
            self._draw(state.max_steps)

    def _draw(self, max_steps: int) -> None:
        with write_atomically(self._folder / TRAINING_HTML) as temporary:
            temporary.write_text(render_curves(self._entries, self._name, max_steps), encoding="utf-8")
        self._last_drawing = time.monotonic()
