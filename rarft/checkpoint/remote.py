"""Checkpoints in a run's folder of an object store: list, download, exclude, rotate. All raise `StoreError`."""

import json
import logging
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rarft.checkpoint.local import CHECKPOINT_JSON, CORRUPT, DIVERGED, SUPERSEDED, parse_step, verify_checkpoint
from rarft.storage.location import S3Folder
from rarft.storage.manifest import CorruptFolderError
from rarft.storage.sync import download_folder

logger = logging.getLogger(__name__)

_EXCLUDED = {f"{prefix}{CHECKPOINT_JSON}" for prefix in (CORRUPT, SUPERSEDED, DIVERGED)}


def list_steps(run: S3Folder) -> list[int]:
    """Return the steps of a run's complete checkpoints, newest first."""
    names = (name.split("/") for name in run.sizes())
    found = (parse_step(parts[0]) for parts in names if len(parts) == 2 and parts[1] == CHECKPOINT_JSON)
    return sorted((step for step in found if step >= 0), reverse=True)


def checkpoint_at(run: S3Folder, step: int) -> S3Folder:
    """Return the location of a run's checkpoint."""
    return run.child(f"{PREFIX_CHECKPOINT_DIR}-{step}")


def exclude(checkpoint: S3Folder, prefix: str, reason: str) -> None:
    """Rename a checkpoint's manifest, so that no run resumes from it, and add the reason. No file is deleted."""
    content = checkpoint.read(CHECKPOINT_JSON)
    try:
        manifest = json.loads(content)
    except ValueError:
        manifest = content.decode(errors="replace")
    renamed = json.dumps({"reason": reason, "manifest": manifest}, indent=1) + "\n"
    checkpoint.write(f"{prefix}{CHECKPOINT_JSON}", renamed.encode())
    checkpoint.delete(CHECKPOINT_JSON)


def exclude_later(run: S3Folder, step: int, prefix: str, reason: str) -> list[int]:
    """Exclude the complete checkpoints after a step; return the steps of the others."""
    steps = list_steps(run)
    for later in (each for each in steps if each > step):
        exclude(checkpoint_at(run, later), prefix, reason)
        logger.warning("%s marked as %s: %s", checkpoint_at(run, later), prefix.removesuffix("-"), reason)
    return [each for each in steps if each <= step]


def fetch(checkpoint: S3Folder, run: Path) -> Path:
    """Download a checkpoint into a run's local folder, and verify it; return its path.

    Raises:
        CorruptFolderError: It is incomplete, or a file differs from its manifest.
    """
    path = run / checkpoint.name
    download_folder(checkpoint, path, CHECKPOINT_JSON)
    verify_checkpoint(path)
    return path


def fetch_newest(run: S3Folder, local_run: Path, after: int) -> Path | None:
    """Download the newest valid checkpoint after a step, and exclude newer ones that are corrupt; None without one."""
    for checkpoint in [checkpoint_at(run, step) for step in list_steps(run) if step > after]:
        try:
            path = fetch(checkpoint, local_run)
            logger.info("%s downloaded", checkpoint)
            return path
        except CorruptFolderError as error:
            exclude(checkpoint, CORRUPT, str(error))
            logger.warning("%s is corrupt (%s); marked as corrupt", checkpoint, error)
    return None


def rotate(run: S3Folder, max_checkpoints: int | None, good: int) -> None:
    """Remove checkpoints that are older than the newest `max_checkpoints` up to step `good`. Excluded ones stay."""
    kept = [step for step in list_steps(run) if step <= good][:max_checkpoints]
    if not max_checkpoints or not kept:
        return
    names = [name.partition("/")[::2] for name in run.sizes()]
    excluded = {folder for folder, file in names if file in _EXCLUDED}
    # Manifests first: without them the checkpoints are incomplete, should the removal be killed.
    for folder, file in sorted(names, key=lambda name: name[1] != CHECKPOINT_JSON):
        if 0 <= parse_step(folder) < kept[-1] and folder not in excluded:
            run.child(folder).delete(file)
