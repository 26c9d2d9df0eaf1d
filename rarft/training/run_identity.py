"""What a resumed run must have in common with its checkpoint, and all that a finished run depends on."""

import hashlib
import json
from dataclasses import astuple
from pathlib import Path
from typing import Any

import msgspec

from rarft.annotations.schema import Sample
from rarft.training.config import TrainingConfig

# Settings that do not change what a run ends with; of the data it is the content that counts.
_IGNORED_FIELDS = {
    "resume_from_checkpoint", "train_data_path", "eval_data_path", "embeddings", "frame_cache", "frame_cache_gb",
    "decode_workers", "out", "scratch", "local_rank",
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


def identity(args: TrainingConfig, model: str, samples: list[Sample], template: str) -> dict[str, Any]:
    """What a run and whatever goes on from it must have in common; `model` as the user named it."""
    names = (
        "num_generations",
        "seed",
        "prompts_per_generation",
        "num_iterations",
        "queries_per_item",
        "refusable_pool",
        "curriculum",
        "use_peft",
        "fix_vit",
        "data_version",
    )
    return {
        "model": model, "data": data_hash(samples), "template": template,
        "sampling": list(astuple(args.sampling)),
        **{name: getattr(args, name) for name in names},
    }  # fmt: skip


def _content(name: str) -> str:
    path = Path(name.rsplit(":", 1)[0])
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else name


def run_fingerprint(settings: dict[str, Any], samples: list[Sample], template: str) -> dict[str, Any]:
    """Everything that a finished run depends on: two runs alike in this end alike."""
    return {
        **{name: repr(value) for name, value in settings.items() if name not in _IGNORED_FIELDS},
        "data": data_hash(samples),
        "template": template,
        "rewards": [_content(name) for name in settings["reward_funcs"]],
    }
