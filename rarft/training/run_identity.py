"""The settings that identify a run: those to resume with, and those that its result depends on."""

import json
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import msgspec

from rarft.annotations.schema import Sample
from rarft.storage.hashing import hash_file, hash_text
from rarft.training.config import TrainingConfig

# Settings that do not change the result of a run. Of data and rewards the content counts, not the path.
_IGNORED_FIELDS = {
    "resume_from_checkpoint", "train_data_path", "eval_data_path", "embeddings", "frame_cache", "frame_cache_gb",
    "decode_workers", "out", "work_dir", "local_rank",
}  # fmt: skip

# Entries of the resume key whose names differ from the flags, with their names in messages; then the others.
_RESUME_KEY_NAMES = {
    "model": "--model_name_or_path",
    "data": "--train_data_path (the content of the data)",
    "template": "--prompt_type (the text of the template)",
    "sampling": "--video_fps or pixel budget (--max_pixels, --video_total_pixels, --video_min_frame_pixels)",
    "prompts_per_generation": "number of prompts per generation (batch size, accumulation or number of ranks)",
}
_RESUME_KEY_FLAGS = (
    "num_generations", "seed", "num_iterations", "queries_per_item", "refusable_pool", "curriculum", "use_peft",
    "fix_vit", "data_version",
)  # fmt: skip


def _hash_samples(samples: list[Sample]) -> str:
    """Return a hash of the samples' content, independent of the folders of annotations and videos."""
    rows = []
    for sample in samples:
        row = msgspec.to_builtins(sample)
        row["video"] = Path(sample.video).name
        row["source"] = row["source"]["item"]
        rows.append(json.dumps(row, sort_keys=True))
    return hash_text("".join(rows))


def resume_key(args: TrainingConfig, model: str, samples: list[Sample], template: str) -> dict[str, Any]:
    """Return the settings that a run must share with a checkpoint to resume from it; `model` is the name as given."""
    return {
        "model": model,
        "data": _hash_samples(samples),
        "template": template,
        **{name: getattr(args, name) for name in _RESUME_KEY_FLAGS},
        "prompts_per_generation": args.prompts_per_generation,
        "sampling": list(astuple(args.sampling)),
    }


def find_difference(current: Mapping[str, Any], saved: Mapping[str, Any]) -> str | None:
    """Return the first entry in which two resume keys differ, such as `--seed: 42, now 7`; None if they are equal."""
    for name in current:
        if saved.get(name) != current[name]:
            return f"{_RESUME_KEY_NAMES.get(name, f'--{name}')}: {saved.get(name)}, now {current[name]}"
    return None


def _hash_reward(name: str) -> str:
    path = Path(name.rsplit(":", 1)[0])
    return hash_file(path) if path.is_file() else name


def run_fingerprint(settings: dict[str, Any], samples: list[Sample], template: str) -> dict[str, Any]:
    """Return the settings that the result of a run depends on. Two runs that share them have the same result."""
    return {
        **{name: repr(value) for name, value in settings.items() if name not in _IGNORED_FIELDS},
        "data": _hash_samples(samples),
        "template": template,
        "rewards": [_hash_reward(name) for name in settings["reward_funcs"]],
    }
