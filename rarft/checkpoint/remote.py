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
    """Rename a checkpoint's manifest, so that no run resumes from it, and add the reason. No file is deleted.

    Args:
        checkpoint: Folder of the checkpoint.
        prefix: CORRUPT, SUPERSEDED or DIVERGED.
        reason: One line.
    """
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


def read_manifest(checkpoint: S3Folder) -> bytes:
    """Return the content of a checkpoint's manifest.

    Raises:
        CorruptFolderError: There is none.
    """
    if not checkpoint.exists(CHECKPOINT_JSON):
        raise CorruptFolderError(f"{CHECKPOINT_JSON} is missing: the checkpoint is incomplete")
    return checkpoint.read(CHECKPOINT_JSON)


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
    for step in list_steps(run):
        if step <= after:
            break
        checkpoint = checkpoint_at(run, step)
        try:
            path = fetch(checkpoint, local_run)
        except CorruptFolderError as error:
            exclude(checkpoint, CORRUPT, str(error))
            logger.warning("%s is corrupt (%s); marked as corrupt", checkpoint, error)
            continue
        logger.info("%s downloaded", checkpoint)
        return path
    return None


def rotate(run: S3Folder, max_checkpoints: int | None, good: int) -> None:
    """Remove checkpoints that are older than the newest good ones. Excluded ones stay.

    Args:
        run: Folder of the run.
        max_checkpoints: Number of good checkpoints to keep; None or 0 keeps all.
        good: Step up to which checkpoints are good.
    """
    kept = [step for step in list_steps(run) if step <= good][:max_checkpoints]
    if not max_checkpoints or not kept:
        return
    found: dict[str, list[str]] = {}
    for name in run.sizes():
        folder, _, file = name.partition("/")
        found.setdefault(folder, []).append(file)
    for folder, files in found.items():
        if not 0 <= parse_step(folder) < kept[-1] or _EXCLUDED & set(files):
            continue
        # Without its manifest the checkpoint is incomplete, should its removal be killed.
        for file in sorted(files, key=lambda file: file != CHECKPOINT_JSON):
            run.child(folder).delete(file)
