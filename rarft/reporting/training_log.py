"""The log of a training run: its entries, their figures by step, and what the evaluation report shows of them."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rarft.errors import InputError
from rarft.reporting.html import Html, columns, curves, section
from rarft.storage import s3
from rarft.storage.files import join_path

TRAINING_JSONL = "training.jsonl"  # log of a run, in the folder of its checkpoints
TRAINING_HTML = "training.html"
_STEP = re.compile(r"checkpoint-(\d+)")
Entry = Mapping[str, Any]
Lines = dict[str, list[tuple[float, float]]]


def parse_log(text: str) -> list[dict[str, Any]]:
    """The entries of a log; a last line that is cut off, by a kill or because training goes on, is left out.

    Raises:
        ValueError: it is no log.
    """
    entries = [json.loads(line) for line in text.splitlines() if line.endswith("}")]
    if not all(isinstance(entry, dict) and "step" in entry for entry in entries):
        raise ValueError("a line without a step")
    return entries


def series_of(entries: Sequence[Entry], names: Sequence[str]) -> Lines:
    """Points (step, value) of each figure, where it is known; a figure that is nowhere known is left out."""
    found = {
        name: [(float(entry["step"]), float(entry[name])) for entry in entries if entry.get(name) is not None]
        for name in names
    }
    return {name: points for name, points in found.items() if points}


def reward_names(entries: Sequence[Entry]) -> list[str]:
    """Names in the log of each reward's mean, such as `rewards/format_reward`."""
    names = {name for entry in entries for name in entry}
    return sorted(name for name in names if name.startswith("rewards/") and name.count("/") == 1)


def _text(checkpoint: str, what: str) -> str | None:
    """What stands in the log beside a checkpoint; None where there is none."""
    if s3.is_object_uri(checkpoint):
        run = checkpoint.rstrip("/").rpartition("/")[0]
        if run.endswith("/"):  # the checkpoint is a whole bucket
            return None
        try:
            return s3.read(join_path(run, TRAINING_JSONL), what).decode()
        except s3.ObjectNotFoundError:
            return None
    file = Path(checkpoint).resolve().parent / TRAINING_JSONL
    return file.read_text(encoding="utf-8") if Path(checkpoint).is_dir() and file.is_file() else None


def training_of(checkpoint: str, what: str) -> list[Entry]:
    """The log of the training that led to a checkpoint, up to its step: of the run's folder that it lies in.

    Where something else lies there, or it may not be read, a line says so, and there is none.

    Args:
        checkpoint: a path, a URI or a hub's name, which has none.
        what: the flag that named it, for messages.
    """
    try:
        text = _text(checkpoint, what)
        entries = parse_log(text) if text is not None else []
    except (InputError, OSError, ValueError) as error:
        print(f"{what} {checkpoint}: no curves of its training: {TRAINING_JSONL} beside it: {error}", flush=True)
        return []
    step = _STEP.fullmatch(checkpoint.rstrip("/").rpartition("/")[2])
    last = float(step[1]) if step else float("inf")
    return [entry for entry in entries if entry["step"] <= last]


def render_training(entries: Sequence[Entry]) -> Html:
    """Reward, each reward and KL by step, as a section."""
    pictures = {
        "Mean reward by step": series_of(entries, ["reward"]),
        "Each reward": series_of(entries, reward_names(entries)),
        "KL divergence from the base": series_of(entries, ["kl"]),
    }
    return section("Training", columns({title: curves(lines) for title, lines in pictures.items() if lines}))
