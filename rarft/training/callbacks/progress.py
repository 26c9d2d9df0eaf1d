"""Progress of a training run on the console."""

import logging
import time
from typing import Any

from transformers import TrainerCallback

logger = logging.getLogger(__name__)

_INTERVAL_S = 5.0  # between two lines
_METRICS = {"reward": "reward", "kl": "KL", "completion_length": "length"}


class ProgressCallback(TrainerCallback):
    """Logs step, metrics and times every few seconds, and at the last step."""

    def __init__(self) -> None:
        self._start = self._last_line = time.monotonic()
        self._first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._start = self._last_line = time.monotonic()
        self._first_step = state.global_step

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Log a line, unless the last one is recent."""
        if not state.is_world_process_zero or not logs or "reward" not in logs:
            return
        now = time.monotonic()
        if now - self._last_line < _INTERVAL_S and state.global_step < state.max_steps:
            return
        self._last_line = now
        elapsed = now - self._start
        remaining = elapsed / max(1, state.global_step - self._first_step) * (state.max_steps - state.global_step)
        metrics = ", ".join(f"{name} {logs[key]:.3g}" for key, name in _METRICS.items() if logs.get(key) is not None)
        step = f"step {state.global_step}/{state.max_steps}"
        logger.info("%s, %s, %.0f s elapsed, %.0f s left", step, metrics, elapsed, remaining)
