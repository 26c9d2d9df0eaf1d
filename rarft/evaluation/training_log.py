"""The log of the training run that a checkpoint comes from, for the report."""

import json
import re
from collections.abc import Mapping
from pathlib import Path

from rarft import objects
from rarft.errors import InputError
from rarft.html import Html, columns, curves, section
from rarft.qwen.checkpoint_names import TRAINING_JSONL
from rarft.storage import exists, fetched, member

_STEP = re.compile(r"checkpoint-(\d+)")
Line = list[tuple[float, float]]


def read_training_log(checkpoint: str, what: str) -> dict[str, Line]:
    """Figures by training step, up to the checkpoint's own: `reward`, each `rewards/NAME`, and `kl`.

    Args:
        checkpoint: a path or URI; the log lies beside it.
        what: the flag that named it, for messages.

    Returns:
        Points (step, value) of each figure; nothing where no log lies there, as with a hub's checkpoint.

    Raises:
        InputError: there is a log, and it cannot be read.
    """
    run, _, name = checkpoint.rstrip("/").rpartition("/")
    if not run or not (objects.is_object_uri(run) or Path(run).is_dir()) or not exists(run, TRAINING_JSONL):
        return {}
    last = float(found[1]) if (found := _STEP.fullmatch(name)) else float("inf")
    lines: dict[str, Line] = {}
    with fetched(member(run, TRAINING_JSONL), what) as file:
        try:
            # The last line may be cut off, by a kill or because training goes on.
            entries = [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.endswith("}")]
            for entry in entries:
                for key, value in entry.items():
                    is_reward = key == "reward" or (key.startswith("rewards/") and key.count("/") == 1)
                    if (is_reward or key == "kl") and entry["step"] <= last:
                        lines.setdefault(key, []).append((float(entry["step"]), float(value)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{what} {checkpoint}: the log beside it cannot be read ({TRAINING_JSONL}: {error}); remove it"
            ) from error
    return lines


def render_training(lines: Mapping[str, Line]) -> Html:
    """The curves as a section."""
    rewards = {name.removeprefix("rewards/"): points for name, points in lines.items() if name.startswith("rewards/")}
    pictures = {
        "Mean reward by step": {"reward": lines["reward"]} if "reward" in lines else {},
        "Each reward": rewards,
        "KL divergence from the base": {"kl": lines["kl"]} if "kl" in lines else {},
    }
    return section("Training", columns({title: curves(series) for title, series in pictures.items() if series}))
