"""Choose the checkpoint to resume from, and mark finished runs."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from rarft.checkpoint import remote
from rarft.checkpoint.local import (
    CHECKPOINT_JSON,
    DONE,
    FINAL,
    GOOD,
    SUPERSEDED,
    exclude_later,
    find_newest,
    good_step,
    is_complete,
    list_checkpoints,
    mark_good,
    parse_step,
    verify_checkpoint,
)
from rarft.distributed.collectives import barrier, run_on_main
from rarft.errors import InputError
from rarft.reporting.training_log import TRAINING_JSONL
from rarft.storage.location import LocalFolder, Location, S3Folder, parse_location
from rarft.storage.manifest import CorruptFolderError, parse_manifest, read_manifest
from rarft.storage.s3 import ObjectNotFoundError

logger = logging.getLogger(__name__)

AUTO, NONE = "auto", "none"


def is_finished(run: Location, fingerprint: dict[str, Any]) -> bool:
    """Check whether the folder contains a finished run with this fingerprint (`run_identity.run_fingerprint`)."""
    try:
        return bool(json.loads(run.read(DONE)) == fingerprint and run.exists(f"{FINAL}/{CHECKPOINT_JSON}"))
    except (ObjectNotFoundError, ValueError):
        return False


def mark_finished(run: Path, fingerprint: dict[str, Any]) -> None:
    """Mark a run as finished; this is the last file written."""
    LocalFolder(run).write(DONE, json.dumps(fingerprint, indent=1).encode() + b"\n")


@dataclass(frozen=True)
class ResumeResolver:
    """Finds the checkpoint that a run resumes from, and excludes those that the run will replace.

    Attributes:
        requested: `auto`, a path, a URI, `none` or None.
        run: Local folder of the run.
        store: The run's folder in an object store, if it has one.
        is_shared: Whether all machines see `run`. Otherwise each machine downloads the checkpoint.
        find_difference: Returns the first setting of a checkpoint that prevents this run from resuming, if any.
    """

    requested: str | None
    run: Path
    store: S3Folder | None
    is_shared: bool
    find_difference: Callable[[Mapping[str, Any]], str | None]

    def resolve(self) -> Path | None:
        """Return the checkpoint that all processes resume from; None to start from scratch.

        Raises:
            InputError: The run cannot resume from the requested checkpoint. It is raised on every process.
        """
        checkpoint, source = run_on_main(self._prepare)
        if not self.is_shared and PartialState().is_local_main_process:
            is_main = PartialState().is_main_process
            for other in list_checkpoints(self.run):  # a partial checkpoint, or one left by an earlier start
                if other != checkpoint or not is_main:
                    shutil.rmtree(other)
            if source is not None and not is_main:
                remote.fetch(source, self.run)
        barrier()
        return checkpoint

    def _prepare(self) -> tuple[Path | None, S3Folder | None]:
        """Return the local checkpoint and where it was downloaded from, after preparing the run's folder."""
        checkpoint: Path | None = None
        source: S3Folder | None = None
        if self.requested == AUTO:
            checkpoint, source = self._find_newest()
        elif self.requested is None or self.requested == NONE:
            self._reject_existing_checkpoints()
        else:
            checkpoint, source = self._find_requested(self.requested)
        if checkpoint is None:
            self._warn_if_finished()
        else:
            manifest = read_manifest(checkpoint, CHECKPOINT_JSON)
            self._check_settings(source or checkpoint, manifest)
            step = int(manifest["step"])
            if self.requested != AUTO:
                if self.store:
                    self._download_run_files(self.store)
                reason = f"the run was resumed from {checkpoint.name}"
                exclude_later(self.run, step, SUPERSEDED, reason)
                if self.store:
                    remote.exclude_later(self.store, step, SUPERSEDED, reason)
            if good_step(self.run) > step:
                mark_good(self.run, step)  # later checkpoints will be saved again
            logger.info("resuming from %s", source or checkpoint)
        for name in (DONE,) if checkpoint else (DONE, GOOD):
            (self.run / name).unlink(missing_ok=True)
            if self.store:
                self.store.delete(name)
        return checkpoint, source

    def _check_settings(self, checkpoint: S3Folder | Path, manifest: dict[str, Any]) -> None:
        if difference := self.find_difference(manifest["settings"]):
            raise InputError(
                f"{checkpoint}: was saved with a different setting ({difference}); use the same value, or another "
                "--exp_name"
            )

    def _find_newest(self) -> tuple[Path | None, S3Folder | None]:
        local = find_newest(self.run) if self.is_shared else None
        newer = self.store and remote.fetch_newest(self.store, self.run, parse_step(local.name) if local else -1)
        if not self.store or not newer:
            return local, None
        self._download_run_files(self.store)
        return newer, self.store.child(newer.name)

    def _download_run_files(self, store: S3Folder) -> None:
        """Download the log, unless a local one exists, and the step up to which checkpoints are good."""
        files, local = store.sizes(), LocalFolder(self.run)
        local.delete(GOOD)  # left by an earlier start on this machine
        for name in (TRAINING_JSONL, GOOD):
            if name in files and not local.exists(name):
                local.write(name, store.read(name))

    def _find_requested(self, requested: str) -> tuple[Path, S3Folder | None]:
        location = parse_location(requested)
        try:
            if isinstance(location, S3Folder):
                return self._download_requested(location), location
            verify_checkpoint(location.path)
        except CorruptFolderError as error:
            raise InputError(f"{requested}: {error}; choose another one, or auto for the newest valid") from error
        return location.path, None

    def _download_requested(self, checkpoint: S3Folder) -> Path:
        """Check a checkpoint, then download it. A failed check leaves the run's folder unchanged."""
        if CHECKPOINT_JSON not in checkpoint.sizes():  # raises if the bucket does not exist
            raise CorruptFolderError(f"{CHECKPOINT_JSON} is missing: the checkpoint is incomplete")
        content = checkpoint.read(CHECKPOINT_JSON)
        self._check_settings(checkpoint, parse_manifest(content, CHECKPOINT_JSON))
        path = self.run / checkpoint.name
        if is_complete(path) and (path / CHECKPOINT_JSON).read_bytes() != content:
            raise InputError(
                f"{checkpoint}: {path} already contains a different checkpoint; use another --exp_name or --work_dir"
            )
        return remote.fetch(checkpoint, self.run)

    def _reject_existing_checkpoints(self) -> None:
        steps = [parse_step(path.name) for path in list_checkpoints(self.run)]
        run: Location = LocalFolder(self.run)
        if not steps and self.store:
            steps, run = remote.list_steps(self.store), self.store
        if steps:
            raise InputError(
                f"{run}: contains checkpoint-{steps[0]} of an earlier run; resume it with --resume_from_checkpoint "
                "auto, or use another --exp_name"
            )

    def _warn_if_finished(self) -> None:
        run = self.store or LocalFolder(self.run)
        if run.exists(DONE):
            logger.warning(
                "starting from scratch; %s contains a finished run, whose %s will be replaced; use another --exp_name "
                "to keep both", run, FINAL,
            )  # fmt: skip
