"""Loading a checkpoint: the hub's, a folder, or the packaged tiny one, all by the same Auto classes."""

import fcntl
import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch

from rarft.checkpoint.locate import CHECKPOINT_JSON, CONFIG_JSON, check_checkpoint, checkpoint_path
from rarft.errors import InputError, input_name
from rarft.storage.files import LOCK, open_local_files, replace_folder
from rarft.storage.manifest import CorruptFolderError
from rarft.storage.s3 import is_object_uri, list_objects
from rarft.storage.sync import open_local_folder


@contextmanager
def fetched_checkpoint(name_or_path: str, what: str, beside: Path | None = None) -> Iterator[str]:
    """Yield a checkpoint's path or hub name; one in an object store is downloaded for as long as that lasts.

    Args:
        name_or_path: of the checkpoint, or its URI.
        what: the flag that named it, for messages.
        beside: folder to download into; by default the system's for temporary files.

    Raises:
        InputError: it is not there, cannot be read, or its manifest does not fit.
    """
    with ExitStack() as files:
        path = name_or_path
        if is_object_uri(name_or_path):
            try:
                with input_name(what):
                    folder = files.enter_context(open_local_folder(name_or_path, CHECKPOINT_JSON, temp_dir=beside))
            except CorruptFolderError as error:
                raise InputError(f"{what} {name_or_path}: {error}; choose another checkpoint") from error
            path = str(folder)
        yield path


def local_checkpoint(name_or_path: str, scratch: Path, what: str) -> str:
    """A checkpoint of an object store, downloaded into `scratch` once for all processes; any other name as it is.

    Raises:
        InputError: it is not there, cannot be read, or its manifest does not fit.
    """
    if not is_object_uri(name_or_path):
        return name_or_path
    held = json.dumps([name_or_path, sorted(list_objects(name_or_path, what).items())])
    place = scratch / ".models" / hashlib.sha256(held.encode()).hexdigest()[:16]
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other processes of this machine wait for the first
        for left in place.parent.glob(".fetched-*"):  # by a process that was killed
            shutil.rmtree(left)
        if not place.exists():
            with fetched_checkpoint(name_or_path, what, place.parent) as folder:
                replace_folder(Path(folder), place)
    return str(place)


def count_parameters(name_or_path: str, what: str) -> int:
    """Return the number of a checkpoint's parameters, from its `config.json` alone.

    Raises:
        InputError: The configuration cannot be loaded.
    """
    from transformers import AutoConfig, AutoModelForImageTextToText

    with ExitStack() as files:
        path = checkpoint_path(name_or_path)
        if is_object_uri(path):
            path = str(files.enter_context(open_local_files(path, [CONFIG_JSON], what)))
        try:
            config = AutoConfig.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{what} {name_or_path}: has no configuration ({' '.join(str(error).split())})"
            ) from error
    with torch.device("meta"):  # layers without memory
        return int(AutoModelForImageTextToText.from_config(config).num_parameters())


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
