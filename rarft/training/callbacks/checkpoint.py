"""Finalization of checkpoints: manifest, upload, and rotation of those that are known to be good."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rarft.checkpoint.disk_space import check_disk_space, required_bytes
from rarft.checkpoint.local import (
    CHECKPOINT_JSON,
    is_complete,
    list_checkpoints,
    mark_good,
    rotate,
    write_checkpoint_manifest,
)
from rarft.checkpoint.uploader import CheckpointUploader, UploadTask
from rarft.distributed.collectives import all_gather, barrier, run_on_main, wait_until_visible
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.storage.location import LocalFolder
from rarft.storage.manifest import hash_files
from rarft.training.callbacks.preemption import PreemptionCallback
from rarft.training.divergence import StepGuard


def _hash_together(folder: Path, sizes: dict[str, int], index: int, count: int) -> list[dict[str, dict[str, Any]]]:
    """Hash a share of a folder's files on each process, and return the entries of the files by process.

    Args:
        folder: Folder that this process shares with others.
        sizes: Size of each of its files.
        index: Number of this process among those that share the folder.
        count: Number of those processes.
    """
    by_size = sorted(sizes, key=lambda name: (-sizes[name], name))
    entries = hash_files(folder, CHECKPOINT_JSON, by_size[index::count])
    barrier()
    return all_gather(entries)


@dataclass(eq=False)
class CheckpointCallback(TrainerCallback):
    """Finalizes a checkpoint once every rank has saved its part, and rotates the good ones.

    A checkpoint is good once a later step had a finite loss and gradient norm. Older ones are removed only then, so
    that a run that diverges has one to resume from.

    Attributes:
        prompt_config: Saved next to the weights, so that evaluation reads prompts in the same way.
        resume_key: Settings that a run must share with a checkpoint to resume from it.
        max_checkpoints: Number of good checkpoints to keep; None keeps all.
        resumed: Checkpoint that the run resumes from, which is not removed.
        is_shared: Whether all machines see the run's folder.
        uploader: Uploads checkpoints to an object store; on one process per machine.
        guard: Records which steps were finite.
        preemption: Knows whether the run stops because of SIGTERM.
    """

    prompt_config: PromptConfig
    resume_key: dict[str, Any]
    max_checkpoints: int | None
    resumed: Path | None
    is_shared: bool
    uploader: CheckpointUploader | None
    guard: StepGuard
    preemption: PreemptionCallback
    _unconfirmed: int | None = None  # step of the newest checkpoint, until it is known to be good

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """Check that the checkpoints fit on the disk."""
        self._unconfirmed = state.global_step or None
        run, max_new = Path(args.output_dir), None
        if self.max_checkpoints is not None:
            # The oldest one is removed after the newest is known to be good.
            existing = sum(map(is_complete, list_checkpoints(run)))
            max_new = max(1, self.max_checkpoints + 1 - existing)
        run_on_main(check_disk_space, run, required_bytes(model, args, state, max_new))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Write the manifest of a checkpoint, and upload it."""
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if PartialState().is_main_process:
            self.prompt_config.save(checkpoint)
        PartialState().wait_for_everyone()
        task = self._finalize_shared(checkpoint) if self.is_shared else self._finalize_per_node(checkpoint)
        if self.uploader and task:
            self.uploader.submit(task, is_urgent=self.preemption.stopped)
        self._unconfirmed = state.global_step
        barrier()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Confirm the checkpoint before this step if the step was finite."""
        if self._unconfirmed is not None and self.guard.last_finite > self._unconfirmed:
            self.confirm(Path(args.output_dir))

    def confirm(self, run: Path) -> None:
        """Record that the newest checkpoint in `run` is good, and rotate. To be called by all processes."""
        if self._unconfirmed is None:
            return
        if PartialState().is_main_process:
            mark_good(run, self._unconfirmed)
            if self.is_shared:
                pending = self.uploader.pending if self.uploader else []
                rotate(run, self.max_checkpoints, [*pending, *([self.resumed] if self.resumed else [])])
        self._unconfirmed = None
        barrier()

    def _finalize_shared(self, checkpoint: Path) -> UploadTask | None:
        """Write a manifest of all files of a shared folder, once the main process sees all of them."""
        sizes = all_gather(LocalFolder(checkpoint).sizes() if PartialState().is_local_main_process else {})
        # The largest size counts: a machine may still see an earlier one of what another machine wrote.
        expected = dict(sorted(entry for files in sizes for entry in files.items()))
        wait_until_visible(checkpoint, expected)
        state = PartialState()
        parts = _hash_together(checkpoint, expected, state.process_index, state.num_processes)
        if not state.is_main_process:
            return None
        self._write_manifest(checkpoint, {name: entry for files in parts for name, entry in files.items()})
        return UploadTask(checkpoint)

    def _finalize_per_node(self, checkpoint: Path) -> UploadTask | None:
        """Write a manifest of the files of all machines, of which each has a part."""
        state = PartialState()
        # The first process of each process's machine.
        firsts = [rank - local for rank, local in enumerate(all_gather(state.local_process_index))]
        first = firsts[state.process_index]
        sizes = LocalFolder(checkpoint).sizes()
        parts: dict[int, dict[str, dict[str, Any]]] = {}
        hashed = _hash_together(checkpoint, sizes, state.local_process_index, firsts.count(first))
        for process, files in zip(firsts, hashed, strict=True):
            parts.setdefault(process, {}).update(files)
        if not state.is_local_main_process:
            return None
        own = parts[first]
        if not state.is_main_process:
            return UploadTask(checkpoint, own)
        self._write_manifest(
            checkpoint, {name: entry for files in parts.values() for name, entry in files.items()} | own
        )
        return UploadTask(checkpoint, own, {process: files for process, files in parts.items() if process})

    def _write_manifest(self, checkpoint: Path, files: dict[str, dict[str, Any]]) -> None:
        write_checkpoint_manifest(checkpoint, self.resume_key, PartialState().num_processes, files)
