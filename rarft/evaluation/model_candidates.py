"""Candidates of an evaluation: checkpoints and files of finished predictions, compared on the same queries."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rarft.checkpoint.source import PACKAGED, check_checkpoint
from rarft.errors import InputError, input_name
from rarft.storage.files import local_path
from rarft.storage.s3 import is_object_uri

EVALUATED = "checkpoint"  # name of the first candidate in the report
_REFERENCE = "base"  # name of the second one, unless the user names it
_SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")  # of finished predictions
_NAMED = re.compile(r"([\w.-]+)=(.+)", re.DOTALL)


@dataclass(frozen=True)
class Candidate:
    """A checkpoint, or a file of finished predictions.

    Attributes:
        name: Name in the report and in file names.
        source: Checkpoint or file, as the user wrote it.
        is_checkpoint: Whether completions are generated.
        flag: Option that named it, for error messages.
    """

    name: str
    source: str
    is_checkpoint: bool
    flag: str


def _is_predictions_file(source: str) -> bool:
    """Check whether an argument names finished predictions: an existing file, or a name that ends in .json(l)[.gz]."""
    if source in PACKAGED:
        return False
    return source.endswith(_SUFFIXES) or (not is_object_uri(source) and local_path(source).is_file())


def split_name(text: str) -> tuple[str, str]:
    """Split `[NAME=]CHECKPOINT_OR_PREDICTIONS` into the name, empty if there is none, and the rest."""
    match = _NAMED.fullmatch(text)
    return (match[1], match[2]) if match else ("", text)


def parse_candidates(checkpoint: str | None, predictions: str | None, compare: Sequence[str]) -> list[Candidate]:
    """Return the candidates: first the one to evaluate, then the reference, then the others.

    Args:
        checkpoint: Checkpoint to evaluate; None with `predictions`.
        predictions: Finished predictions to evaluate; None with `checkpoint`.
        compare: Candidates to compare with, each `[NAME=]CHECKPOINT_OR_PREDICTIONS`. A name without `NAME=` is the
            last part of the path, numbered where it is taken; the first is called `base`.

    Raises:
        InputError: Not exactly one of `checkpoint` and `predictions` is given, a name occurs twice, or a checkpoint
            does not exist.
    """
    if checkpoint is not None and predictions is None:
        candidates = [Candidate(EVALUATED, checkpoint, True, "--checkpoint")]
    elif predictions is not None and checkpoint is None:
        candidates = [Candidate(EVALUATED, predictions, False, "--predictions")]
    else:
        raise InputError("pass either a checkpoint or predictions")
    taken = {EVALUATED}
    named = [split_name(text) for text in compare]
    for name, source in named:
        if name in taken:
            raise InputError(f"--compare {name}={source}: the name {name} is already used; choose another")
        taken |= {name} if name else set()
    for index, (name, source) in enumerate(named):
        name = name or _unused_name(source if index else _REFERENCE, taken)
        taken.add(name)
        candidates.append(Candidate(name, source, not _is_predictions_file(source), "--compare"))
    for candidate in candidates:
        if candidate.is_checkpoint:
            with input_name(candidate.flag):
                check_checkpoint(candidate.source)
    return candidates


def _unused_name(source: str, taken: set[str]) -> str:
    """Return the last part of a path as a name, followed by a number if it is taken."""
    last = source.rstrip("/").rpartition("/")[2]
    stem = re.sub(r"[^\w.-]+", "-", last.removesuffix(".gz").rpartition(".")[0] if last.endswith(_SUFFIXES) else last)
    name, number = stem, 2
    while name in taken:
        name, number = f"{stem}-{number}", number + 1
    return name
