"""What a checkpoint may be called: a packaged one, a folder, a hub's name, a URI; looked at without loading it."""

import json
from importlib import resources
from pathlib import Path

from rarft.errors import InputError
from rarft.storage.fingerprint import fingerprint, hash_folder
from rarft.storage.s3 import is_object_uri, list_objects

CHECKPOINT_JSON = "checkpoint.json"  # manifest of a checkpoint's folder
CONFIG_JSON = "config.json"

# Short names of the checkpoints that the package carries.
PACKAGED = {"tiny": "tiny-answers-everything", "tiny-truthful": "tiny-truthful"}


def checkpoint_path(name_or_path: str) -> str:
    """Where a checkpoint's files are: the packaged folder of a short name, else the name itself."""
    if name_or_path in PACKAGED:
        return str(resources.files("rarft.synthetic").joinpath("assets", PACKAGED[name_or_path]))
    return name_or_path


def check_checkpoint(name_or_path: str, what: str = "") -> None:
    """Make sure, without loading it, that a folder or URI holds a checkpoint; a hub's name is taken as it is.

    Raises:
        InputError: a path that is not there, or a place that holds no Qwen2.5-VL.
    """
    if is_object_uri(name_or_path):
        if CONFIG_JSON not in list_objects(name_or_path, what):
            raise InputError(f"{what} {name_or_path}: is no checkpoint (no {CONFIG_JSON} there); check the URI")
        return
    path = Path(checkpoint_path(name_or_path))
    if not path.exists():
        looks_like_hub_name = name_or_path.count("/") == 1 and not name_or_path.startswith((".", "/", "~"))
        if not looks_like_hub_name:
            raise InputError(f"{what} {name_or_path}: no such checkpoint; give a folder, a hub name, or `tiny`")
        return
    config = path / CONFIG_JSON
    try:
        model_type = json.loads(config.read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        final = path / "checkpoint-final"
        meant = f"did you mean {final}?" if final.is_dir() else "give a Hugging Face folder"
        raise InputError(f"{what} {path}: is no checkpoint (no readable {CONFIG_JSON}); {meant}") from error
    if model_type != "qwen2_5_vl":
        raise InputError(f"{what} {path}: is a {model_type} model; give a Qwen2.5-VL checkpoint")


def checkpoint_content(name_or_path: str, what: str) -> str:
    """A text that changes when a checkpoint's files do; of a hub's name, the name.

    Raises:
        InputError: its store cannot be read.
    """
    if is_object_uri(name_or_path):
        return fingerprint(
            f"{name} {size} {tag}" for name, (size, tag) in sorted(list_objects(name_or_path, what).items())
        )
    folder = Path(checkpoint_path(name_or_path))
    return hash_folder(folder) if folder.is_dir() else name_or_path
