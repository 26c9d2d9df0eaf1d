"""When to save and when to stop: saves wait for the next boundary, and SIGTERM saves and stops there.

A boundary is a step after which all sampled completions have been used. TRL keeps completions in memory only, so a run
that resumed from another step would sample different ones, and end with different weights.

A launcher also sends SIGTERM when another rank has died. This rank then hangs in a collective and never reaches a
boundary, so a watchdog thread exits the process, long before the launcher's timeout for a rank that saves.
"""

import logging
import os
import signal
import socket
import threading
import time
from typing import Any

import torch
from transformers import TrainerCallback

from rarft.errors import EXIT_FAILED

logger = logging.getLogger(__name__)

_MIN_TIMEOUT_S = 60.0  # without a step, after which a rank that was requested to stop gives up
_FIRST_TIMEOUT_S = 600.0  # before the duration of a step is known


class PreemptionCallback(TrainerCallback):
    """Postpones every save to the next boundary, and stops there if any rank has received SIGTERM.

    Attributes:
        stop_requested: Whether this rank has received SIGTERM.
        stopped: Whether training ended because a rank received SIGTERM.
    """

    def __init__(self) -> None:
        self.stop_requested = self.stopped = False
        self._save_is_due = False
        self._previous_handler: Any = None
        self._previous_wakeup_fd = -1
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._last_progress = 0.0  # time at which the last step, save or evaluation ended
        self._longest_step = 0.0  # seconds; 0 before the end of the first step
        self._saved_step = -1
        self._is_saving = False  # or evaluating, which has no timeout either

    def _on_sigterm(self, _number: int, _frame: Any) -> None:
        self.stop_requested = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Handle SIGTERM until `close`."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._last_progress = time.monotonic()
        self._previous_handler = signal.signal(signal.SIGTERM, self._on_sigterm)
        # Python calls a handler between two of its instructions, so never in a rank that waits for a dead one inside
        # a collective. The wake-up byte is written at once.
        self._sockets = socket.socketpair()
        self._sockets[1].setblocking(False)
        self._previous_wakeup_fd = signal.set_wakeup_fd(self._sockets[1].fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(self._sockets[0],), name="preemption", daemon=True).start()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop handling SIGTERM."""
        self.close()

    def close(self) -> None:
        """Restore the previous handler of SIGTERM. To be called also after training failed."""
        if self._sockets is None:
            return
        signal.signal(signal.SIGTERM, self._previous_handler)
        signal.set_wakeup_fd(self._previous_wakeup_fd)
        self._sockets[1].close()  # ends the thread
        self._sockets = None

    def _watch(self, wakeup: socket.socket) -> None:
        """Wait for SIGTERM, then end the process if no step ends within the timeout."""
        with wakeup:
            while received := wakeup.recv(1):
                if received[0] == signal.SIGTERM:
                    break
            else:
                return
            while self._sockets is not None:
                time.sleep(0.5)
                timeout = max(_MIN_TIMEOUT_S, 2 * self._longest_step) if self._longest_step else _FIRST_TIMEOUT_S
                is_late = time.monotonic() - self._last_progress > timeout
                if is_late and not self._is_saving and self._sockets is not None:
                    logger.error(
                        "no step ended within %.0f s of SIGTERM, because another rank has died; "
                        "the first error in this log is the cause", timeout,
                    )  # fmt: skip
                    os._exit(EXIT_FAILED)

    def _is_stop_requested(self, args: Any) -> bool:
        """Return True on every rank if any rank has received SIGTERM."""
        if not torch.distributed.is_initialized():
            return self.stop_requested
        requested = torch.tensor(int(self.stop_requested), device=args.device)
        torch.distributed.all_reduce(requested, torch.distributed.ReduceOp.MAX)
        return bool(requested.item())

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note that the last save or evaluation has ended."""
        self._last_progress, self._is_saving = time.monotonic(), False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Skip the save at the end of an epoch if its last step was saved."""
        if self.stopped or state.global_step == self._saved_step:
            control.should_save = False
        self._is_saving = control.should_save or control.should_evaluate
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Save and stop if that is due and this step is a boundary."""
        self._longest_step = max(self._longest_step, time.monotonic() - self._last_progress)
        stop_requested = self._is_stop_requested(args)
        self._save_is_due = self._save_is_due or control.should_save or stop_requested
        batches = state.global_step * args.gradient_accumulation_steps
        at_boundary = batches % (args.steps_per_generation * args.num_iterations) == 0
        control.should_save = self._save_is_due and (at_boundary or state.global_step >= state.max_steps)
        self._is_saving = control.should_save or control.should_evaluate
        if control.should_save:
            self._save_is_due, self._saved_step = False, state.global_step
            if stop_requested and state.global_step < state.max_steps:
                self.stopped = control.should_training_stop = True
        return control
