"""Choose the checkpoint to resume from, and mark finished runs."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState

from rarft.checkpoint import remote
from rarft.checkpoint.local import (
    CHECKPOINT_JSON,
    CORRUPT,
    DONE,
    FINAL,
    GOOD,
    SUPERSEDED,
    exclude,
    find_newest,
    good_step,
    is_complete,
    list_checkpoints,
    mark_good,
    parse_step,
    verify_checkpoint,
)
from rarft.distributed.collectives import barrier, is_local_main_process, run_on_main
from rarft.errors import InputError
from rarft.reporting.training_log import TRAINING_JSONL
from rarft.storage.files import write_atomically
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
    with write_atomically(run / DONE) as temporary:
        temporary.write_text(json.dumps(fingerprint, indent=1) + "\n", encoding="utf-8")


class ResumeResolver:
    """Finds the checkpoint that a run resumes from, and excludes those that the run will replace.

    Args:
        requested: `auto`, a path, a URI, `none` or None.
        run: Local folder of the run.
        store: The run's folder in an object store, if it has one.
        is_shared: Whether all machines see `run`. Otherwise each machine downloads the checkpoint.
        find_difference: Returns the first setting of a checkpoint that prevents this run from resuming, if any.
    """

    def __init__(
        self,
        requested: str | None,
        run: Path,
        store: S3Folder | None,
        is_shared: bool,
        find_difference: Callable[[Mapping[str, Any]], str | None],
    ) -> None:
        self._requested = None if requested == NONE else requested
        self._run, self._store, self._is_shared = run, store, is_shared
        self._find_difference = find_difference

    def resolve(self) -> Path | None:
        """Return the checkpoint that all processes resume from; None to start from scratch.

        Raises:
            InputError: The run cannot resume from the requested checkpoint. It is raised on every process.
        """
        checkpoint, source = run_on_main(self._prepare)
        if not self._is_shared and is_local_main_process():
            is_main = PartialState().is_main_process
            for other in list_checkpoints(self._run):  # a partial checkpoint, or one left by an earlier start
                if other != checkpoint or not is_main:
                    shutil.rmtree(other)
            if source is not None and not is_main:
                remote.fetch(source, self._run)
        barrier()
        return checkpoint

    def _prepare(self) -> tuple[Path | None, S3Folder | None]:
        """Return the local checkpoint and where it was downloaded from, after preparing the run's folder."""
        checkpoint, source = self._find_checkpoint()
        if checkpoint is None:
            self._warn_if_finished()
        else:
            manifest = read_manifest(checkpoint, CHECKPOINT_JSON)
            self._check_settings(source or checkpoint, manifest)
            step = int(manifest["step"])
            if self._requested != AUTO:
                if self._store:
                    self._download_run_files(self._store)
                self._exclude_later(checkpoint, step)
            if good_step(self._run) > step:
                mark_good(self._run, step)  # later checkpoints will be saved again
            logger.info("resuming from %s", source or checkpoint)
        for name in (DONE,) if checkpoint else (DONE, GOOD):
            (self._run / name).unlink(missing_ok=True)
            if self._store:
                self._store.delete(name)
        return checkpoint, source

    def _find_checkpoint(self) -> tuple[Path | None, S3Folder | None]:
        if self._requested is None:
            self._reject_existing_checkpoints()
            return None, None
        return self._find_newest() if self._requested == AUTO else self._find_requested(self._requested)

    def _check_settings(self, checkpoint: S3Folder | Path, manifest: dict[str, Any]) -> None:
        if difference := self._find_difference(manifest["settings"]):
            raise InputError(
                f"{checkpoint}: was saved with a different setting ({difference}); use the same value, or another "
                "--exp_name"
            )

    def _find_newest(self) -> tuple[Path | None, S3Folder | None]:
        local = find_newest(self._run) if self._is_shared else None
        if self._store is None:
            return local, None
        downloaded = remote.fetch_newest(self._store, self._run, parse_step(local.name) if local else -1)
        if downloaded is None:
            return local, None
        self._download_run_files(self._store)
        return downloaded, self._store.child(downloaded.name)

    def _download_run_files(self, store: S3Folder) -> None:
        """Download the log, unless a local one exists, and the step up to which checkpoints are good."""
        files, local = store.sizes(), LocalFolder(self._run)
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
        content = remote.read_manifest(checkpoint)
        self._check_settings(checkpoint, parse_manifest(content, CHECKPOINT_JSON))
        path = self._run / checkpoint.name
        if is_complete(path) and (path / CHECKPOINT_JSON).read_bytes() != content:
            raise InputError(
                f"{checkpoint}: {path} already contains a different checkpoint; use another --exp_name or --work_dir"
            )
        return remote.fetch(checkpoint, self._run)

    def _exclude_later(self, checkpoint: Path, step: int) -> None:
        """Exclude the run's checkpoints that are later than the one resumed from."""
        reason = f"the run was resumed from {checkpoint.name}"
        for later in list_checkpoints(self._run):
            if parse_step(later.name) > step:
                renamed = exclude(later, SUPERSEDED if is_complete(later) else CORRUPT, reason)
                logger.warning("%s renamed to %s: %s", later.name, renamed.name, reason)
        if self._store:
            remote.exclude_later(self._store, step, SUPERSEDED, reason)

    def _reject_existing_checkpoints(self) -> None:
        steps = [parse_step(path.name) for path in list_checkpoints(self._run)]
        run: Location = LocalFolder(self._run)
        if not steps and self._store:
            steps, run = remote.list_steps(self._store), self._store
        if steps:
            raise InputError(
                f"{run}: contains checkpoint-{steps[0]} of an earlier run; resume it with --resume_from_checkpoint "
                "auto, or use another --exp_name"
            )

    def _warn_if_finished(self) -> None:
        run = self._store or LocalFolder(self._run)
        if run.exists(DONE):
            logger.warning(
                "starting from scratch; %s contains a finished run, whose %s will be replaced; use another --exp_name "
                "to keep both", run, FINAL,
            )  # fmt: skip
