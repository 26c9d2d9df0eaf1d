"""Where a run begins: anew, from a checkpoint of its own, or not at all, because it is done."""

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from rarft.errors import InputError
from rarft.grpo.checkpoints import (
    DONE,
    check_same_run,
    checkpoints_of,
    newest_complete,
    set_aside,
    step_of,
    verified,
)
from rarft.grpo.config import TrainingConfig
from rarft.manifest import IncompleteError
from rarft.riq.schema import Sample
from rarft.storage import write_atomically

AUTO = "auto"

# Settings that do not change what a run ends with; of the data it is the content that counts.
_WITHOUT_EFFECT = {
    "resume_from_checkpoint", "train_data_path", "eval_data_path", "embeddings", "frame_cache", "frame_cache_gb",
    "decode_workers",
}  # fmt: skip


def data_hash(samples: list[Sample]) -> str:
    """Of what the samples say, wherever they and their videos lie."""
    digest = hashlib.sha256()
    for sample in samples:
        row = msgspec.to_builtins(sample)
        row["video"] = Path(sample.video).name
        row["source"] = row["source"]["item"]
        digest.update(json.dumps(row, sort_keys=True).encode())
    return digest.hexdigest()


def identity(args: TrainingConfig, samples: list[Sample], template: str) -> dict[str, Any]:
    """What a run and whatever goes on from it must have in common."""
    names = (
        "num_generations",
        "seed",
        "prompts_per_generation",
        "num_iterations",
        "curriculum",
        "use_peft",
        "fix_vit",
    )
    return {
        "model": args.model_name_or_path, "data": data_hash(samples), "template": template,
        **{name: getattr(args, name) for name in names},
    }  # fmt: skip


def _content(name: str) -> str:
    path = Path(name.rsplit(":", 1)[0])
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else name


def whole_identity(settings: dict[str, Any], samples: list[Sample], template: str) -> dict[str, Any]:
    """Everything that a finished run depends on: two runs alike in this end alike."""
    return {
        **{name: repr(value) for name, value in settings.items() if name not in _WITHOUT_EFFECT},
        "data": data_hash(samples),
        "template": template,
        "rewards": [_content(name) for name in settings["reward_funcs"]],
    }


def is_done(run: Path, whole: dict[str, Any]) -> bool:
    """Whether this very run has ended well before."""
    try:
        return bool(json.loads((run / DONE).read_text(encoding="utf-8")) == whole)
    except (OSError, ValueError):
        return False


def mark_done(run: Path, whole: dict[str, Any]) -> None:
    """Leave the mark that a run has ended well; the last thing that it writes."""
    with write_atomically(run / DONE) as temporary:
        temporary.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


def _choose(asked: str | None, run: Path, settings: dict[str, Any], world_size: int) -> Path | None:
    if asked == AUTO:
        checkpoint = newest_complete(run)
    elif asked in (None, "none"):
        if found := checkpoints_of(run):
            raise InputError(
                f"{run} holds {found[0].name} of an earlier run; --resume_from_checkpoint auto goes on from there, "
                "another --exp_name begins anew"
            )
        return None
    else:
        checkpoint = Path(str(asked))
        try:
            verified(checkpoint)
        except IncompleteError as error:
            raise InputError(
                f"--resume_from_checkpoint {checkpoint}: {error}; choose another, or auto for the newest whole one"
            ) from error
        for newer in checkpoints_of(run):
            if checkpoint.resolve().parent == run.resolve() and step_of(newer) > step_of(checkpoint):
                place = set_aside(newer, f"the run went on from {checkpoint.name}")
                print(f"training: {newer.name} set aside as {place.name}", flush=True)
    if checkpoint is not None:
        check_same_run(checkpoint, settings, world_size)
        print(f"training: going on from {checkpoint}", flush=True)
    return checkpoint


def checkpoint_to_resume(asked: str | None, run: Path, settings: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from, decided by the main process for all of them; None to begin anew.

    Args:
        asked: of `--resume_from_checkpoint`: auto, a path, none or nothing.
        run: folder of the run's checkpoints.
        settings: this run's `identity`.

    Raises:
        InputError: there is nothing to go on from, or it is another run's; on every rank alike.
    """
    state = PartialState()
    decision: list[Any] = [None, None]
    if state.is_main_process:
        try:
            chosen = _choose(asked, run, settings, state.num_processes)
            decision = [str(chosen) if chosen else None, None]
            (run / DONE).unlink(missing_ok=True)  # of another run; a refused one changes nothing
        except InputError as error:
            decision = [None, str(error)]
    if state.num_processes > 1:
        broadcast_object_list(decision)
    if decision[1]:
        raise InputError(decision[1])
    return Path(decision[0]) if decision[0] else None
