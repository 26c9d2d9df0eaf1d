"""Names of checkpoints: a packaged one, a folder, a Hub name or a URI; checked without loading weights."""

import json
from importlib import resources
from pathlib import Path

from rarft.errors import InputError
from rarft.hub import check_hub_model
from rarft.storage.files import local_path
from rarft.storage.hashing import hash_folder_stats, hash_text
from rarft.storage.s3 import is_object_uri, list_objects

CHECKPOINT_JSON = "checkpoint.json"  # manifest of a checkpoint's folder
CONFIG_JSON = "config.json"
# Folders of the packaged checkpoints, by name.
PACKAGED = {"tiny": "tiny-answers-everything", "tiny-truthful": "tiny-truthful"}


def checkpoint_path(name_or_path: str) -> str:
    """Return the folder of a packaged checkpoint or of a `file://` URI; any other name as it is."""
    if name_or_path in PACKAGED:
        return str(resources.files("rarft.synthetic").joinpath("assets", PACKAGED[name_or_path]))
    if is_object_uri(name_or_path):
        return name_or_path
    path = local_path(name_or_path)
    return str(path) if "://" in name_or_path else name_or_path


def is_hub_name(name_or_path: str) -> bool:
    """Check whether a name is neither a folder nor a URI, and has the form of a name on the Hub."""
    if is_object_uri(name_or_path) or name_or_path.startswith((".", "/", "~")):
        return False
    return name_or_path.count("/") == 1 and not Path(checkpoint_path(name_or_path)).exists()


def check_checkpoint(name_or_path: str) -> None:
    """Check that a folder or URI contains a Qwen2.5-VL checkpoint, and that a Hub name can be loaded.

    Raises:
        InputError: It does not exist, or contains no such checkpoint.
    """
    if is_object_uri(name_or_path):
        if CONFIG_JSON not in list_objects(name_or_path):
            raise InputError(f"{name_or_path}: not a checkpoint (no {CONFIG_JSON}); check the URI")
        return
    if is_hub_name(name_or_path):
        check_hub_model(name_or_path)
        return
    path = Path(checkpoint_path(name_or_path))
    if not path.exists():
        raise InputError(f"{name_or_path}: no such checkpoint; use a folder, a Hub name, or `tiny`")
    try:
        model_type = json.loads((path / CONFIG_JSON).read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        final = path / "checkpoint-final"
        fix = f"did you mean {final}?" if final.is_dir() else "use a Hugging Face folder"
        raise InputError(f"{path}: not a checkpoint (no readable {CONFIG_JSON}); {fix}") from error
    if model_type != "qwen2_5_vl":
        raise InputError(f"{path}: is a {model_type} model; use a Qwen2.5-VL checkpoint")


def checkpoint_fingerprint(name_or_path: str) -> str:
    """Return a text that changes when a checkpoint's files do. That of a Hub name is the name."""
    if is_object_uri(name_or_path):
        objects = sorted(list_objects(name_or_path).items())
        return hash_text(*(f"{name} {size} {tag}" for name, (size, tag) in objects))
    folder = Path(checkpoint_path(name_or_path))
    return hash_folder_stats(folder) if folder.is_dir() else name_or_path
