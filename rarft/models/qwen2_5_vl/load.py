"""Load checkpoints from the Hugging Face Hub, a folder, an object store or the package, by the Auto classes."""

import fcntl
import importlib.util
import json
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from rarft.checkpoint.source import CHECKPOINT_JSON, CONFIG_JSON, check_checkpoint, checkpoint_path
from rarft.errors import InputError
from rarft.storage.files import LOCK, replace_folder
from rarft.storage.hashing import hash_text
from rarft.storage.location import S3Folder
from rarft.storage.manifest import CorruptFolderError
from rarft.storage.s3 import is_object_uri, list_objects
from rarft.storage.sync import open_local_folder

logger = logging.getLogger(__name__)


@contextmanager
def open_checkpoint(name_or_path: str, temp_dir: Path | None = None) -> Iterator[str]:
    """Yield the local path or Hub name of a checkpoint; one in an object store is downloaded into a temporary folder.

    Raises:
        InputError: The checkpoint does not exist, cannot be read, or does not match its manifest.
    """
    if not is_object_uri(name_or_path):
        yield name_or_path
        return
    with ExitStack() as files:
        try:
            remote = S3Folder(name_or_path)
            folder = files.enter_context(open_local_folder(remote, CHECKPOINT_JSON, temp_dir))
        except CorruptFolderError as error:
            raise InputError(f"{name_or_path}: {error}; use another checkpoint") from error
        yield str(folder)


def download_checkpoint(name_or_path: str, work_dir: Path) -> str:
    """Return the local path of a checkpoint; one in an object store is downloaded once for the machine's processes.

    Raises:
        InputError: The checkpoint does not exist, cannot be read, or does not match its manifest.
    """
    if not is_object_uri(name_or_path):
        return name_or_path
    version = json.dumps([name_or_path, sorted(list_objects(name_or_path).items())])
    folder = work_dir / ".models" / hash_text(version)[:16]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the machine's other processes wait for the first
        for partial in folder.parent.glob(".fetched-*"):  # of a process that was killed
            shutil.rmtree(partial)
        if not folder.exists():
            with open_checkpoint(name_or_path, folder.parent) as downloaded:
                replace_folder(Path(downloaded), folder)
    return str(folder)


def count_parameters(name_or_path: str) -> int:
    """Return the number of a checkpoint's parameters, from its `config.json` alone."""
    from transformers import AutoConfig, AutoModelForImageTextToText

    with ExitStack() as files:
        path = checkpoint_path(name_or_path)
        if is_object_uri(path):
            path = str(files.enter_context(S3Folder(path).download([CONFIG_JSON])))
        try:
            config = AutoConfig.from_pretrained(path)
        except (OSError, ValueError) as error:
            raise _load_error(name_or_path, "configuration", error) from error
    with torch.device("meta"):  # layers without memory
        return int(AutoModelForImageTextToText.from_config(config).num_parameters())


def load_model(name_or_path: str, dtype: torch.dtype, attn_implementation: str | None = None) -> Any:
    """Load a Qwen2.5-VL model for conditional generation.

    Args:
        name_or_path: Name, path or URI of the checkpoint.
        dtype: Data type of the weights.
        attn_implementation: `sdpa`, `eager`, or `flash_attention_2`, which is the flash-attn package if it is
            installed. Otherwise, and by default, torch's own kernels are used: variable-length ones if the GPU has
            them (decision D29).

    Raises:
        InputError: The model cannot be loaded.
    """
    from transformers import AutoModelForImageTextToText

    from rarft.models.qwen2_5_vl.vision_attention import enable_segment_attention

    check_checkpoint(name_or_path)
    stock = attn_implementation or "sdpa"
    if stock == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
        logger.info("flash-attn is not installed; torch's own attention kernels are used instead")
        stock = "sdpa"
    try:
        model, loading = AutoModelForImageTextToText.from_pretrained(
            checkpoint_path(name_or_path),
            dtype=dtype,
            attn_implementation=stock,
            ignore_mismatched_sizes=True,  # they are reported below
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:  # such as a truncated or another file
        raise _load_error(name_or_path, "model", error) from error
    _check_weights(name_or_path, loading)
    if stock == "sdpa":
        enable_segment_attention(model, allow_varlen=attn_implementation != "sdpa")
    return model


def _check_weights(name_or_path: str, loading: Mapping[str, Any]) -> None:
    """Check that all weights come from the checkpoint; the others would be random."""
    wrong = {
        "lacks": sorted(loading["missing_keys"]),
        "has another shape of": sorted(key for key, *_ in loading["mismatched_keys"]),
    }
    for problem, names in wrong.items():
        if names:
            count = f"{len(names)} of its weights, such as {names[0]}"
            raise InputError(f"{name_or_path}: the checkpoint {problem} {count}; use another checkpoint")


def load_processor(name_or_path: str) -> Any:
    """Load a checkpoint's processor, with padding on the left."""
    from transformers import AutoProcessor

    try:
        return AutoProcessor.from_pretrained(checkpoint_path(name_or_path), padding_side="left")
    except (OSError, ValueError) as error:
        raise _load_error(name_or_path, "processor", error) from error


def _load_error(name_or_path: str, part: str, error: Exception) -> InputError:
    reason = " ".join(str(error).split())[:300]
    return InputError(f"{name_or_path}: cannot load the {part} ({reason}); use another checkpoint")
