"""Loading a checkpoint: the hub's, a folder, or the packaged tiny one, all by the same Auto classes."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from rarft.errors import InputError

# Short names of the checkpoints that the package carries.
PACKAGED = {"tiny": "tiny-answers-everything", "tiny-truthful": "tiny-truthful"}


def checkpoint_path(name_or_path: str) -> str:
    """Where a checkpoint's files are: the packaged folder of a short name, else the name itself."""
    if name_or_path in PACKAGED:
        return str(resources.files("rarft").joinpath("assets", PACKAGED[name_or_path]))
    return name_or_path


def check_checkpoint(name_or_path: str, what: str) -> None:
    """Make sure, without loading it, that a local checkpoint is one; a hub's name is taken as it is.

    Raises:
        InputError: a path that is not there, or a folder that holds no Qwen2.5-VL.
    """
    path = Path(checkpoint_path(name_or_path))
    if not path.exists():
        looks_like_hub_name = name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~"))
        if not looks_like_hub_name:
            raise InputError(f"{what} {name_or_path}: no such checkpoint; give a folder, a hub name, or `tiny`")
        return
    config = path / "config.json"
    try:
        model_type = json.loads(config.read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{what} {path}: is no checkpoint (no readable config.json); give a Hugging Face folder"
        ) from error
    if model_type != "qwen2_5_vl":
        raise InputError(f"{what} {path}: is a {model_type} model; give a Qwen2.5-VL checkpoint")


def load_model(name_or_path: str, what: str, dtype: torch.dtype, **options: Any) -> Any:
    """A Qwen2.5-VL model for conditional generation.

    Raises:
        InputError: it cannot be loaded; the message says why.
    """
    from transformers import AutoModelForImageTextToText

    check_checkpoint(name_or_path, what)
    try:
        return AutoModelForImageTextToText.from_pretrained(checkpoint_path(name_or_path), dtype=dtype, **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {name_or_path}: cannot be loaded ({' '.join(str(error).split())[:300]})") from error


def load_processor(name_or_path: str, what: str) -> Any:
    """The checkpoint's processor, padding on the left.

    Raises:
        InputError: it cannot be loaded; the message says why.
    """
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(checkpoint_path(name_or_path), padding_side="left")
    except (OSError, ValueError) as error:
        raise InputError(f"{what} {name_or_path}: has no processor ({' '.join(str(error).split())[:300]})") from error
