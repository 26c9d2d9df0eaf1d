"""Checkpoints of a run: complete or set aside, rotated, found again, and compared with what goes on from them."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rarft.checkpoint.locate import CHECKPOINT_JSON
from rarft.errors import InputError
from rarft.storage.files import Location, write_atomically
from rarft.storage.manifest import CorruptFolderError, read_manifest, verify_folder, write_manifest

DONE = "DONE"
FINAL = "checkpoint-final"
# File next to the checkpoints: the newest of them that is known to be good. Those before it are, too.
GOOD = "good.json"
# Why a checkpoint no longer counts; in front of its name, or of its manifest's in a store.
CORRUPT, SUPERSEDED, DIVERGED = "corrupt-", "superseded-", "diverged-"
_REASON = "reason.txt"

# Why a run cannot go on from a checkpoint whose setting differs.
_FLAGS = {
    "model": "--model_name_or_path",
    "data": "--train_data_path (the content of the data)",
    "template": "--prompt_type (the text of the template)",
    "num_generations": "--num_generations",
    "seed": "--seed",
    "prompts_per_generation": "the prompts of a generation (batch size, accumulation or number of ranks)",
    "num_iterations": "--num_iterations",
    "queries_per_item": "--queries_per_item",
    "refusable_pool": "--refusable_pool",
    "curriculum": "--curriculum",
    "use_peft": "--use_peft",
    "fix_vit": "--fix_vit",
    "data_version": "--data_version",
    "sampling": "--video_fps or pixel budget (--max_pixels, --video_total_pixels, --video_min_frame_pixels)",
}


def step_of(checkpoint: Path) -> int:
    """N of `checkpoint-N`; -1 for another name."""
    number = checkpoint.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-")
    return int(number) if number.isdigit() else -1


def checkpoints_of(run: Path) -> list[Path]:
    """Folders of the name `checkpoint-N`, complete or not, the newest first."""
    found = [path for path in run.glob(f"{PREFIX_CHECKPOINT_DIR}-*") if path.is_dir() and step_of(path) >= 0]
    return sorted(found, key=step_of, reverse=True)


def complete(checkpoint: Path, settings: dict[str, Any], world_size: int, files: dict[str, dict[str, Any]]) -> None:
    """Say of a checkpoint that all of its files are there; the last that is written of it.

    Args:
        checkpoint: its folder.
        settings: of `resume.identity`.
        world_size: ranks that saved it.
        files: of `manifest.entries`.
    """
    about = {"step": step_of(checkpoint), "world_size": world_size, "settings": settings}
    write_manifest(checkpoint, CHECKPOINT_JSON, about, files)


def is_complete(checkpoint: Path) -> bool:
    """Whether it says so; its files are not looked at."""
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
    """Record that the checkpoints up to this step are good, and no later one."""
    with write_atomically(run / GOOD) as temporary:
        temporary.write_text(json.dumps({"step": step}) + "\n", encoding="utf-8")


def exclude(checkpoint: Path, kind: str, reason: str) -> Path:
    """Rename a checkpoint that no longer counts, with the reason inside; nothing of it is lost.

    Args:
        checkpoint: Its folder.
        kind: Prefix of its new name: CORRUPT, SUPERSEDED or DIVERGED.
        reason: One line.
    """
    place = checkpoint.with_name(kind + checkpoint.name)
    number = 1
    while place.exists():
        number += 1
        place = checkpoint.with_name(f"{kind}{checkpoint.name}-{number}")
    checkpoint.rename(place)
    (place / _REASON).write_text(reason + "\n", encoding="utf-8")
    return place


def rng_states(world_size: int) -> list[str]:
    """Files with the random numbers' states of all ranks."""
    return ["rng_state.pth"] if world_size == 1 else [f"rng_state_{rank}.pth" for rank in range(world_size)]


def verified(checkpoint: Path) -> dict[str, Any]:
    """The manifest of a checkpoint from which a run can go on to the same bits.

    Raises:
        CorruptFolderError: a file is missing or damaged, or a rank's random numbers were not saved.
    """
    manifest = verify_folder(checkpoint, CHECKPOINT_JSON)
    if "world_size" not in manifest:
        raise CorruptFolderError("it is a final model, without what training goes on from; take a checkpoint-N")
    if missing := [name for name in rng_states(manifest["world_size"]) if name not in manifest["files"]]:
        raise CorruptFolderError(f"{missing[0]} is missing: the run would go on with other random numbers")
    return manifest


def newest_complete(run: Path) -> Path | None:
    """The newest checkpoint that verifies; newer ones that do not are set aside, and told."""
    for checkpoint in checkpoints_of(run):
        try:
            verified(checkpoint)
        except CorruptFolderError as error:
            place = exclude(checkpoint, CORRUPT, str(error))
            print(f"training: {checkpoint.name} is not complete ({error}); renamed to {place.name}", flush=True)
            continue
        return checkpoint
    return None


def rotate(run: Path, most: int | None, in_use: Sequence[Path] = ()) -> None:
    """Keep the newest `most` complete checkpoints that are known to be good, newer ones, and those in use."""
    if not most:
        return
    found, good = checkpoints_of(run), good_step(run)
    kept = [checkpoint for checkpoint in found if step_of(checkpoint) <= good and is_complete(checkpoint)][:most]
    for checkpoint in found:
        # Older ones that are not complete are what an earlier removal, or a save, was killed in.
        if checkpoint not in in_use and kept and step_of(checkpoint) < step_of(kept[-1]):
            # Without its manifest it is incomplete at once, should its removal be cut short.
            (checkpoint / CHECKPOINT_JSON).unlink(missing_ok=True)
            shutil.rmtree(checkpoint)


def remove_temp_files(run: Path) -> None:
    """Remove what killed processes were about to make; there must be no other one at work in the folder."""
    for pattern in (".checkpoint-*", ".adapters.*", ".unfinished-*", ".*.tmp"):
        for path in run.glob(pattern):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()


def check_same_run(checkpoint: Location, manifest: dict[str, Any], settings: dict[str, Any]) -> None:
    """Make sure that going on from a checkpoint goes on with the same run.

    Args:
        checkpoint: where it lies, for messages.
        manifest: its manifest.
        settings: of `resume.identity`.

    Raises:
        InputError: a setting differs that must not; the message says which.
    """
    for name, flag in _FLAGS.items():
        before, now = manifest["settings"].get(name), settings[name]
        if before != now:
            raise InputError(
                f"--resume_from_checkpoint {checkpoint}: was made with another {flag}: {before}, now {now}; "
                "go on with the same, or choose another --exp_name"
            )
