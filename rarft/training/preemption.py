"""Stopping when told to: SIGTERM asks for a checkpoint at the next boundary, and then for the end.

Boundaries are the steps at which no sampled completion waits to be used: TRL keeps those in memory alone, so a
run that goes on from anywhere else samples others and ends with other bits.

A launcher sends SIGTERM too where another rank has died. Then no boundary comes, because this one waits for the
dead one, and a watch ends it long before the launcher's patience with a saving rank is over.
"""

import os
import signal
import socket
import sys
import threading
import time
from typing import Any

import torch
from transformers import TrainerCallback

from rarft.errors import EXIT_FAILED

_LEAST_PATIENCE = 60.0  # seconds without a step before a rank that was told to stop gives up
_FIRST_PATIENCE = 600.0  # before the first step has shown how long one takes


class PreemptionCallback(TrainerCallback):
    """Puts every save off to the next boundary, and stops there once any rank was told to stop.

    Attributes:
        stop_requested: this rank was, by SIGTERM.
        stopped: training ended because of it.
    """

    def __init__(self) -> None:
        self.stop_requested = self.stopped = False
        self._save_is_due = False
        self._former: Any = None
        self._former_wakeup = -1
        self._sockets: tuple[socket.socket, socket.socket] | None = None
        self._moved = 0.0  # when the last step ended
        self._longest: float | None = None  # step, in seconds
        self._saved_step = -1
        self._saving = False  # or evaluating: that takes its time

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self.stop_requested = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Listen for SIGTERM."""
        if threading.current_thread() is not threading.main_thread():
            return
        self._moved = time.monotonic()
        self._former = signal.signal(signal.SIGTERM, self._on_signal)
        # Python runs a handler between two of its instructions: never, in a rank that waits for a dead one inside
        # a collective. The wake-up byte is written at once.
        self._sockets = socket.socketpair()
        self._sockets[1].setblocking(False)
        self._former_wakeup = signal.set_wakeup_fd(self._sockets[1].fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, args=(self._sockets[0],), name="preemption", daemon=True).start()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let SIGTERM end the process again."""
        if self._sockets is None:
            return
        signal.signal(signal.SIGTERM, self._former)
        signal.set_wakeup_fd(self._former_wakeup)
        self._sockets[1].close()  # the watch reads the end
        self._sockets = None

    def _watch(self, woken: socket.socket) -> None:
        """Wait for SIGTERM, and then for steps; end the process where none comes."""
        with woken:
            while received := woken.recv(1):
                if received[0] == signal.SIGTERM:
                    break
            else:
                return
            while self._sockets is not None:
                time.sleep(0.5)
                patience = _FIRST_PATIENCE if self._longest is None else max(_LEAST_PATIENCE, 2 * self._longest)
                if self._sockets is not None and not self._saving and time.monotonic() - self._moved > patience:
                    print(
                        f"rarft train: told to stop, and no step ended for {patience:.0f} s: another rank is gone; "
                        "the first error in this log is the cause",
                        file=sys.stderr, flush=True,
                    )  # fmt: skip
                    os._exit(EXIT_FAILED)

    def _any_rank_was_told(self, args: Any) -> bool:
        if not torch.distributed.is_initialized():
            return self.stop_requested
        told = torch.tensor(int(self.stop_requested), device=args.device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return bool(told.item())

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A save, or an evaluation, is over."""
        self._moved, self._saving = time.monotonic(), False

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Do not write over the checkpoint that was just saved; a save or an evaluation takes its time."""
        if self.stopped or state.global_step == self._saved_step:
            control.should_save = False
        self._saving = control.should_save or control.should_evaluate
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Save and stop here if that is due and this is a boundary."""
        now = time.monotonic()
        self._longest = max(self._longest or 0.0, now - self._moved)
        told = self._any_rank_was_told(args)
        self._save_is_due = self._save_is_due or control.should_save or told
        batches = state.global_step * args.gradient_accumulation_steps
        at_boundary = batches % (args.steps_per_generation * args.num_iterations) == 0
        control.should_save = self._save_is_due and (at_boundary or state.global_step >= state.max_steps)
        self._saving = control.should_save or control.should_evaluate
        if control.should_save:
            self._save_is_due, self._saved_step = False, state.global_step
            if told and state.global_step < state.max_steps:
                self.stopped = control.should_training_stop = True
        return control
