"""What happens beside training: a line of progress, the log and its curves, what belongs to a checkpoint, epochs."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rarft.grpo.curves import render_curves
from rarft.grpo.data import TrainingRows
from rarft.qwen.reading import ReadingSettings
from rarft.storage import write_atomically

METRICS_JSONL = "training.jsonl"
TRAINING_HTML = "training.html"

_INTERVAL = 5.0  # seconds between two lines
_DRAW_INTERVAL = 10.0  # seconds between two drawings of the curves
_SHOWN = {"reward": "reward", "kl": "KL", "completion_length": "length"}


class ProgressLine(TrainerCallback):
    """Prints step, time, reward, KL and completion length every few seconds, and at the last step."""

    def __init__(self) -> None:
        self._started = self._printed = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._started = self._printed = time.monotonic()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Print, unless the last line is recent."""
        now = time.monotonic()
        last = state.global_step >= state.max_steps
        if not state.is_world_process_zero or not logs or "reward" not in logs:
            return
        if now - self._printed < _INTERVAL and not last:
            return
        self._printed = now
        elapsed = now - self._started
        remaining = elapsed / max(1, state.global_step) * (state.max_steps - state.global_step)
        shown = ", ".join(f"{name} {logs[key]:.3g}" for key, name in _SHOWN.items() if logs.get(key) is not None)
        print(
            f"training: step {state.global_step}/{state.max_steps}, {shown}, {elapsed:.0f} s, {remaining:.0f} s to go",
            file=sys.stderr, flush=True,
        )  # fmt: skip


class ReadingBesideCheckpoints(TrainerCallback):
    """Puts the reading settings into every checkpoint, so that each can be evaluated as it was trained."""

    def __init__(self, reading: ReadingSettings) -> None:
        self._reading = reading

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write them into the checkpoint of this step."""
        if state.is_world_process_zero:
            self._reading.save(Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}")


class TrainingLog(TrainerCallback):
    """Keeps every log entry in `training.jsonl`, and draws them in `training.html`, while training runs."""

    def __init__(self, folder: Path, name: str) -> None:
        """
        Args:
            folder: of both files.
            name: of the run.
        """
        self._folder, self._name = folder, name
        self._entries: list[dict[str, Any]] = []
        self._drawn = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin a fresh log."""
        if state.is_world_process_zero:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / METRICS_JSONL).write_text("")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append one entry, and draw unless that was done just now."""
        if not state.is_world_process_zero or not logs:
            return
        entry = {"step": state.global_step, **logs}
        self._entries.append(entry)
        with (self._folder / METRICS_JSONL).open("a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        if time.monotonic() - self._drawn > _DRAW_INTERVAL:
            self._draw(state.max_steps)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Draw all of it."""
        if state.is_world_process_zero and self._entries:
            self._draw(state.max_steps)

    def _draw(self, max_steps: int) -> None:
        with write_atomically(self._folder / TRAINING_HTML) as temporary:
            temporary.write_text(render_curves(self._entries, self._name, max_steps), encoding="utf-8")
        self._drawn = time.monotonic()


class Epochs(TrainerCallback):
    """Tells the rows which epoch is drawn from them."""

    def __init__(self, rows: TrainingRows) -> None:
        self._rows = rows

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Lay out this epoch's rows."""
        self._rows.epoch = int(state.epoch or 0)
