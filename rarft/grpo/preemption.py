"""Stopping when told to: SIGTERM asks for a checkpoint at the next boundary, and then for the end.

Boundaries are the steps at which no sampled completion waits to be used: TRL keeps those in memory alone, so a
run that goes on from anywhere else samples others and ends with other bits.
"""

import signal
import threading
from typing import Any

import torch
from transformers import TrainerCallback


class SaveAtBoundaries(TrainerCallback):
    """Puts every save off to the next boundary, and stops there once any rank was told to stop.

    Attributes:
        told_to_stop: this rank was, by SIGTERM.
        stopped: training ended because of it.
    """

    def __init__(self) -> None:
        self.told_to_stop = self.stopped = False
        self._save_is_due = False
        self._former: Any = None

    def _on_signal(self, _number: int, _frame: Any) -> None:
        self.told_to_stop = True

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Listen for SIGTERM."""
        if threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGTERM, self._on_signal)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Let SIGTERM end the process again."""
        if self._former is not None:
            signal.signal(signal.SIGTERM, self._former)

    def _any_rank_was_told(self, args: Any) -> bool:
        if not torch.distributed.is_initialized():
            return self.told_to_stop
        told = torch.tensor(int(self.told_to_stop), device=args.device)
        torch.distributed.all_reduce(told, torch.distributed.ReduceOp.MAX)
        return bool(told.item())

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Do not write over the checkpoint that was just saved."""
        if self.stopped:
            control.should_save = False
        return control

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
        """Save and stop here if that is due and this is a boundary."""
        told = self._any_rank_was_told(args)
        self._save_is_due = self._save_is_due or control.should_save or told
        batches = state.global_step * args.gradient_accumulation_steps
        at_boundary = batches % (args.steps_per_generation * args.num_iterations) == 0
        control.should_save = self._save_is_due and (at_boundary or state.global_step >= state.max_steps)
        if control.should_save:
            self._save_is_due = False
            if told and state.global_step < state.max_steps:
                self.stopped = control.should_training_stop = True
        return control
