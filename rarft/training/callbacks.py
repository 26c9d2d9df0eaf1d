"""What happens beside training: a line of progress, the log and its curves, what belongs to a checkpoint, epochs."""

import json
import sys
import time
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rarft.checkpoint.disk_space import bytes_needed, check_space
from rarft.checkpoint.local import CHECKPOINT_JSON, checkpoints_of, complete, is_complete, mark_good, rotate
from rarft.checkpoint.uploader import CheckpointUploader, UploadTask
from rarft.distributed.collectives import (
    all_gather,
    barrier,
    broadcast_from_main,
    is_local_main_process,
    listing,
    wait_until_visible,
)
from rarft.errors import InputError
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.reporting.training_curves import render_curves
from rarft.reporting.training_log import TRAINING_HTML, TRAINING_JSONL, parse_log
from rarft.storage.files import write_atomically
from rarft.storage.manifest import hash_files
from rarft.training.data import TrainingDataset
from rarft.training.divergence import StepGuard

_INTERVAL = 5.0  # seconds between two lines
_DRAW_INTERVAL = 10.0  # seconds between two drawings of the curves
_SHOWN = {"reward": "reward", "kl": "KL", "completion_length": "length"}


class ProgressCallback(TrainerCallback):
    """Prints step, time, reward, KL and completion length every few seconds, and at the last step."""

    def __init__(self) -> None:
        self._started = self._printed = time.monotonic()
        self._first = 0  # step that this process went on from

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._started = self._printed = time.monotonic()
        self._first = state.global_step

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
        remaining = elapsed / max(1, state.global_step - self._first) * (state.max_steps - state.global_step)
        shown = ", ".join(f"{name} {logs[key]:.3g}" for key, name in _SHOWN.items() if logs.get(key) is not None)
        print(
            f"training: step {state.global_step}/{state.max_steps}, {shown}, {elapsed:.0f} s, {remaining:.0f} s to go",
            file=sys.stderr, flush=True,
        )  # fmt: skip


class CheckpointCallback(TrainerCallback):
    """Makes a saved checkpoint complete: how it reads prompts, and the manifest; and rotates the good ones.

    A checkpoint is good once a later step had a finite loss and gradient norm. Older ones are removed only then, so
    that a run that diverges has one to resume from.
    """

    def __init__(
        self,
        reading: PromptConfig,
        settings: dict[str, Any],
        most: int | None,
        in_use: Path | None,
        shared: bool,
        uploads: CheckpointUploader | None,
        guard: StepGuard,
    ) -> None:
        """
        Args:
            reading: put beside the weights, so that the checkpoint can be evaluated as it was trained.
            settings: what a run that goes on from it must have in common with this one.
            most: good checkpoints to keep; None: all.
            in_use: the one that the run went on from.
            shared: whether all machines see the run's folder.
            uploads: sends checkpoints to a store; on the processes that lead their machine.
            guard: knows which steps were finite.
        """
        self._reading, self._settings, self._most = reading, settings, most
        self._in_use, self._shared, self._uploads, self._guard = in_use, shared, uploads, guard
        self._unconfirmed: int | None = None  # step of the newest checkpoint, while it is not known to be good

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Make sure that the checkpoints fit on the disk.

        Raises:
            InputError: they do not; on every process alike.
        """
        self._unconfirmed = state.global_step or None
        refusal = None
        if PartialState().is_main_process:
            try:
                check_space(Path(args.output_dir), bytes_needed(model, args, state, self._kept(args)))
            except InputError as error:
                refusal = str(error)
        if refusal := broadcast_from_main(refusal):
            raise InputError(refusal)

    def _kept(self, args: Any) -> int | None:
        """How many more checkpoints will lie on the disk at a time; None: all to come."""
        if self._most is None:
            return None
        # The oldest goes after the newest is known to be good.
        held = sum(map(is_complete, checkpoints_of(Path(args.output_dir))))
        return max(1, self._most + 1 - held)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Every rank has saved its part: write the manifest, and send what is complete."""
        processes = PartialState()
        run = Path(args.output_dir)
        checkpoint = run / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if processes.is_main_process:
            self._reading.save(checkpoint)
        processes.wait_for_everyone()
        parcel = self._finalize_shared(checkpoint) if self._shared else self._finalize_per_node(checkpoint)
        if self._uploads is not None and parcel is not None:
            self._uploads.send(parcel)
        self._unconfirmed = state.global_step
        barrier()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Confirm the checkpoint before this step, if the step was finite."""
        if self._unconfirmed is not None and self._guard.last_finite > self._unconfirmed:
            self.confirm(Path(args.output_dir))

    def confirm(self, run: Path) -> None:
        """Record that the newest checkpoint is good, and remove those beyond the limit. To be called by all processes.

        Args:
            run: Folder of the checkpoints.
        """
        if self._unconfirmed is None:
            return
        if PartialState().is_main_process:
            mark_good(run, self._unconfirmed)
            if self._shared:
                under_way = self._uploads.under_way if self._uploads else []
                rotate(run, self._most, [*under_way, *([self._in_use] if self._in_use else [])])
        self._unconfirmed = None
        barrier()

    def _finalize_shared(self, checkpoint: Path) -> UploadTask | None:
        """All machines see one folder: its manifest names every file in it, once all of them are seen."""
        seen = all_gather(listing(checkpoint) if is_local_main_process() else {})
        if not PartialState().is_main_process:
            return None
        largest: dict[str, int] = {}  # a machine may still see an earlier size of what another one wrote
        for files in seen:
            for name, size in files.items():
                largest[name] = max(size, largest.get(name, 0))
        wait_until_visible(checkpoint, largest)
        complete(checkpoint, self._settings, PartialState().num_processes, hash_files(checkpoint, CHECKPOINT_JSON))
        return UploadTask(checkpoint)

    def _finalize_per_node(self, checkpoint: Path) -> UploadTask | None:
        """Each machine holds a part of the files: the main process's manifest names them all."""
        own = hash_files(checkpoint, CHECKPOINT_JSON) if is_local_main_process() else None
        barrier()
        held = {process: files for process, files in enumerate(all_gather(own)) if files is not None}
        if own is None:
            return None
        if not PartialState().is_main_process:
            return UploadTask(checkpoint, own)
        together = {name: entry for files in held.values() for name, entry in files.items()} | own
        complete(checkpoint, self._settings, PartialState().num_processes, together)
        return UploadTask(checkpoint, own, {process: files for process, files in held.items() if process})


class JsonlLogCallback(TrainerCallback):
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
        """Begin the log, or go on with the entries up to the step that the run goes on from."""
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
        """Append one entry, and draw unless that was done just now."""
        if not state.is_world_process_zero or not logs:
            return
        entry = {"step": state.global_step, **logs}
        self._entries.append(entry)
        with (self._folder / TRAINING_JSONL).open("a", encoding="utf-8") as file:
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


class SetEpochCallback(TrainerCallback):
    """Tells the rows which epoch is drawn from them."""

    def __init__(self, rows: TrainingDataset) -> None:
        self._rows = rows

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Lay out this epoch's rows."""
        self._rows.epoch = int(state.epoch or 0)
