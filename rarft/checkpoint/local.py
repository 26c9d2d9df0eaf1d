"""Checkpoints in a run's local folder: their manifests, validity and rotation."""

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rarft.checkpoint.source import CHECKPOINT_JSON
from rarft.storage.location import LocalFolder
from rarft.storage.manifest import CorruptFolderError, read_manifest, verify_folder, write_manifest

logger = logging.getLogger(__name__)

DONE = "DONE"  # file of a finished run, written last
FINAL = "checkpoint-final"
# File next to the checkpoints with the step of the newest one that is known to be good. Earlier ones are good, too.
GOOD = "good.json"
# Prefixes of the name of an excluded checkpoint, or of its manifest's name in an object store.
CORRUPT, SUPERSEDED, DIVERGED = "corrupt-", "superseded-", "diverged-"


def parse_step(checkpoint: str) -> int:
    """Return N of a folder name `checkpoint-N`; -1 for another name."""
    number = checkpoint.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(number) if number.isdigit() else -1


def list_checkpoints(run: Path) -> list[Path]:
    """Return the folders named `checkpoint-N`, complete or not, newest first."""
    found = [path for path in run.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir() and parse_step(path.name) >= 0]
    return sorted(found, key=lambda path: parse_step(path.name), reverse=True)


def write_checkpoint_manifest(
    checkpoint: Path, resume_key: dict[str, Any], world_size: int, files: dict[str, dict[str, Any]]
) -> None:
    """Write the manifest that makes a checkpoint of `world_size` ranks complete. All other files exist."""
    fields = {"step": parse_step(checkpoint.name), "world_size": world_size, "settings": resume_key}
    write_manifest(checkpoint, CHECKPOINT_JSON, fields, files)


def is_complete(checkpoint: Path) -> bool:
    """Check whether a checkpoint has a readable manifest. Its other files are not checked."""
    try:
        read_manifest(checkpoint, CHECKPOINT_JSON)
    except CorruptFolderError:
        return False
    return True


def good_step(run: Path) -> int:
    """Return the step up to which a run's checkpoints are known to be good; 0 if none is."""
    try:
        return int(json.loads((run / GOOD).read_text(encoding="utf-8"))["step"])
    except FileNotFoundError:
        return 0


def mark_good(run: Path, step: int) -> None:
    """Record that the checkpoints up to this step are good, and later ones are not known to be."""
    LocalFolder(run).write(GOOD, json.dumps({"step": step}).encode() + b"\n")


def exclude(checkpoint: Path, prefix: str, reason: str) -> Path:
    """Rename a checkpoint so that no run resumes from it; return its new path. No file is deleted.

    The prefix is CORRUPT, SUPERSEDED or DIVERGED. The reason, one line, is written to `reason.txt` in the folder.
    """
    renamed = checkpoint.with_name(prefix + checkpoint.name)
    number = 1
    while renamed.exists():
        number += 1
        renamed = checkpoint.with_name(f"{prefix}{checkpoint.name}-{number}")
    checkpoint.rename(renamed)
    (renamed / "reason.txt").write_text(reason + "\n", encoding="utf-8")
    return renamed


def exclude_later(run: Path, step: int, prefix: str, reason: str) -> list[int]:
    """Exclude the checkpoints after a step; return the steps of the complete ones among the others."""
    found = list_checkpoints(run)
    for later in (path for path in found if parse_step(path.name) > step):
        renamed = exclude(later, prefix if is_complete(later) else CORRUPT, reason)
        logger.warning("%s renamed to %s: %s", later.name, renamed.name, reason)
    return [number for path in found if (number := parse_step(path.name)) <= step and is_complete(path)]


def verify_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """Check every file of a checkpoint, and that a run can resume from it; return its manifest.

    Raises:
        CorruptFolderError: A file is missing or differs from the manifest, or the checkpoint is a final model.
    """
    manifest = verify_folder(checkpoint, CHECKPOINT_JSON)
    if "world_size" not in manifest:
        raise CorruptFolderError("it is a final model without the state of training; use a checkpoint-N")
    ranks = manifest["world_size"]
    for name in ["rng_state.pth"] if ranks == 1 else [f"rng_state_{rank}.pth" for rank in range(ranks)]:
        if name not in manifest["files"]:
            raise CorruptFolderError(f"{name} is missing, so the RNG state would be reset")
    return manifest


def find_newest(run: Path) -> Path | None:
    """Return the newest valid checkpoint, and exclude newer ones that are corrupt; None if there is none."""
    for checkpoint in list_checkpoints(run):
        try:
            verify_checkpoint(checkpoint)
            return checkpoint
        except CorruptFolderError as error:
            renamed = exclude(checkpoint, CORRUPT, str(error))
            logger.warning("%s is corrupt (%s); renamed to %s", checkpoint.name, error, renamed.name)
    return None


def rotate(run: Path, max_checkpoints: int | None, in_use: Sequence[Path] = ()) -> None:
    """Remove checkpoints that are older than the newest `max_checkpoints` good and complete ones, except `in_use`.

    None or 0 keeps all.
    """
    found, good = list_checkpoints(run), good_step(run)
    kept = [path for path in found if parse_step(path.name) <= good and is_complete(path)][:max_checkpoints]
    if not max_checkpoints or not kept:
        return
    # Older incomplete ones remain from a removal, or a save, that was killed.
    for checkpoint in found:
        if checkpoint not in in_use and parse_step(checkpoint.name) < parse_step(kept[-1].name):
            # Without its manifest the checkpoint is incomplete, should its removal be killed.
            (checkpoint / CHECKPOINT_JSON).unlink(missing_ok=True)
            shutil.rmtree(checkpoint)


def remove_temp_files(run: Path) -> None:
    """Remove temporary files of killed processes. No other process may be writing into the folder."""
    for pattern in (".checkpoint-*", ".adapters.*", ".unfinished-*", ".*.tmp"):
        for path in run.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
