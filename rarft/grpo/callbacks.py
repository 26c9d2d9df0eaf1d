"""What happens beside training: a line of progress, the metrics as a file, and what belongs to a checkpoint."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rarft.qwen.reading import ReadingSettings

_INTERVAL = 5.0  # seconds between two lines
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


class MetricsFile(TrainerCallback):
    """Appends every log entry to a JSON Lines file, while training runs."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Begin a fresh file."""
        if state.is_world_process_zero:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text("")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Append one line."""
        if state.is_world_process_zero and logs:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": state.global_step, **logs}) + "\n")
