"""Checkpoints of a run in an object store: listed, fetched to go on from, set aside, rotated."""

import json
from pathlib import Path

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rarft.checkpoint.local import CHECKPOINT_JSON, CORRUPT, DIVERGED, SUPERSEDED, step_of, verified
from rarft.storage import s3
from rarft.storage.files import join_path
from rarft.storage.manifest import CorruptFolderError
from rarft.storage.sync import download_folder

WHAT = "--out"
_ASIDE = {f"{kind}{CHECKPOINT_JSON}" for kind in (CORRUPT, SUPERSEDED, DIVERGED)}


def steps_held(uri: str) -> list[int]:
    """Steps of the complete checkpoints of a run, the newest first.

    Raises:
        StoreError: the store cannot be asked.
    """
    names = (name.split("/") for name in s3.sizes(uri, WHAT))
    found = (step_of(Path(parts[0])) for parts in names if len(parts) == 2 and parts[1] == CHECKPOINT_JSON)
    return sorted((step for step in found if step >= 0), reverse=True)


def checkpoint_uri(run: str, step: int) -> str:
    """Where a run's checkpoint lies."""
    return join_path(run, f"{PREFIX_CHECKPOINT_DIR}-{step}")


def exclude(checkpoint: str, kind: str, reason: str) -> None:
    """Take a checkpoint out of those that count: its manifest gets another name and says why. No file is lost.

    Args:
        checkpoint: URI of its folder.
        kind: Prefix of the manifest's new name: CORRUPT, SUPERSEDED or DIVERGED.
        reason: One line.

    Raises:
        StoreError: The store cannot be read or written.
    """
    manifest = join_path(checkpoint, CHECKPOINT_JSON)
    content = s3.read(manifest, WHAT)
    try:
        about = json.loads(content)
    except ValueError:
        about = content.decode(errors="replace")
    told = json.dumps({"reason": reason, "manifest": about}, indent=1) + "\n"
    s3.write(join_path(checkpoint, f"{kind}{CHECKPOINT_JSON}"), told.encode(), WHAT)
    s3.delete(manifest, WHAT)


def manifest_of(checkpoint: str) -> bytes:
    """A checkpoint's manifest.

    Raises:
        CorruptFolderError: it has none.
        StoreError: the store cannot be read.
    """
    if CHECKPOINT_JSON not in s3.sizes(checkpoint, WHAT):
        raise CorruptFolderError(f"{CHECKPOINT_JSON} is missing: it was not written to its end")
    return s3.read(join_path(checkpoint, CHECKPOINT_JSON), WHAT)


def fetch(checkpoint: str, run: Path) -> Path:
    """Download a checkpoint into a run's folder, and hold it against its manifest.

    Raises:
        CorruptFolderError: it is not complete, or not what was saved.
        StoreError: the store cannot be read.
    """
    place = run / checkpoint.rstrip("/").rsplit("/", 1)[-1]
    download_folder(checkpoint, place, CHECKPOINT_JSON, WHAT)
    verified(place)
    return place


def fetch_newest(uri: str, run: Path, after: int) -> Path | None:
    """The newest complete checkpoint of the store, if it is newer than step `after`; damaged ones are set aside.

    Raises:
        StoreError: the store cannot be read.
    """
    for step in steps_held(uri):
        if step <= after:
            break
        checkpoint = checkpoint_uri(uri, step)
        try:
            place = fetch(checkpoint, run)
        except CorruptFolderError as error:
            exclude(checkpoint, CORRUPT, str(error))
            print(f"training: {checkpoint} is not complete ({error}); marked as corrupt", flush=True)
            continue
        print(f"training: {checkpoint} fetched", flush=True)
        return place
    return None


def rotate(uri: str, most: int | None, good: int) -> None:
    """Keep the newest `most` complete checkpoints that are known to be good, newer ones, and those set aside.

    Args:
        uri: Of the run's folder.
        most: Good checkpoints to keep; None: all.
        good: Step up to which checkpoints are good.

    Raises:
        StoreError: the store cannot be written to.
    """
    kept = [step for step in steps_held(uri) if step <= good][:most]
    if not most or not kept:
        return
    found: dict[str, list[str]] = {}
    for name in s3.sizes(uri, WHAT):
        folder, _, rest = name.partition("/")
        found.setdefault(folder, []).append(rest)
    for folder, names in found.items():
        if not 0 <= step_of(Path(folder)) < kept[-1] or _ASIDE & set(names):
            continue
        # Without its manifest it is incomplete at once, should its removal be cut short.
        for name in sorted(names, key=lambda name: name != CHECKPOINT_JSON):
            s3.delete(f"{join_path(uri, folder)}/{name}", WHAT)
