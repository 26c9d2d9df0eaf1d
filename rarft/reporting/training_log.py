"""The log of a training run: its entries, and the figures in them by step."""

import json
import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

from rarft.errors import InputError
from rarft.storage.location import LocalFolder, Location, parse_location
from rarft.storage.s3 import ObjectNotFoundError

TRAINING_JSONL = "training.jsonl"  # log of a run, in the folder of its checkpoints
TRAINING_HTML = "training.html"
_CHECKPOINT = re.compile(r"checkpoint-(\d+)")
Entry = Mapping[str, Any]
Series = dict[str, list[tuple[float, float]]]
logger = logging.getLogger(__name__)


def parse_log(text: str) -> list[dict[str, Any]]:
    """Parse a log, or raise a ValueError. An incomplete last line, of a killed or a running training, is ignored."""
    entries = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    if not all(isinstance(entry, dict) and "step" in entry for entry in entries):
        raise ValueError("a line has no step")
    return entries


def series_of(entries: Sequence[Entry], names: Sequence[str]) -> Series:
    """Return the points (step, value) of each figure; a figure without any value is left out."""
    found = {
        name: [(float(entry["step"]), float(entry[name])) for entry in entries if entry.get(name) is not None]
        for name in names
    }
    return {name: points for name, points in found.items() if points}


def reward_names(entries: Sequence[Entry]) -> list[str]:
    """Return the names of the rewards' means in the log, such as `rewards/format_reward`."""
    names = {name for entry in entries for name in entry}
    return sorted(name for name in names if name.startswith("rewards/") and name.count("/") == 1)


def read_log(run: Location) -> list[dict[str, Any]]:
    """Read the log of a run from its folder.

    Raises:
        InputError: There is none, or it is malformed.
    """
    try:
        return parse_log(run.read(TRAINING_JSONL).decode())
    except ObjectNotFoundError as error:
        raise InputError(
            f"{run}: contains no {TRAINING_JSONL}; pass the folder with the checkpoints of a run"
        ) from error
    except ValueError as error:
        raise InputError(f"{run}: {TRAINING_JSONL} cannot be read: {error}; pass the folder of a run") from error


def read_training_log(checkpoint: str) -> list[Entry]:
    """Read the log of the run that saved a checkpoint, up to the checkpoint's step, from the checkpoint's parent.

    Without a log, or, with a warning, if it cannot be read, the list is empty.
    """
    location = parse_location(checkpoint)
    if isinstance(location, LocalFolder):
        if not location.path.is_dir():
            return []
        location = LocalFolder(location.path.resolve())
    run = location.parent
    try:
        entries = parse_log(run.read(TRAINING_JSONL).decode())
    except ObjectNotFoundError:
        return []
    except (InputError, ValueError) as error:
        logger.warning("%s: no training curves: %s cannot be read: %s", checkpoint, TRAINING_JSONL, error)
        return []
    step = _CHECKPOINT.fullmatch(checkpoint.rstrip("/").rpartition("/")[2])
    last = float(step[1]) if step else float("inf")
    return [entry for entry in entries if entry["step"] <= last]
