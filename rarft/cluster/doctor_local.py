"""Checks of this machine. Each returns what it found, or raises `InputError` if something is wrong."""

import importlib.metadata
import importlib.util
import shutil
import sys
from pathlib import Path

from rarft.errors import InputError
from rarft.storage.files import existing_file
from rarft.storage.location import LocalFolder, parse_location
from rarft.storage.s3 import object_version

_PACKAGES = ("torch", "transformers", "trl", "deepspeed", "flash-attn", "vllm", "kfp")
_MIN_DISK = 50e9  # bytes: checkpoints that wait for their upload, and a model of 7 billion parameters
_MIN_DISK_WITHOUT_GPU = 1e9  # bytes: checkpoints of the tiny model, the only one that trains on a CPU


def versions() -> str:
    """Return the versions of Python and of the packages that training uses."""
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"python {sys.version.split()[0]}, {', '.join(found) or 'no torch: validation only'}"


def gpu_count() -> int:
    """Return the number of GPUs that are visible to torch."""
    import torch

    return torch.cuda.device_count()


def gpus(required: int | None) -> str:
    """Return the number and names of the GPUs, at least as many as required."""
    import torch

    count = gpu_count()
    if required and count < required:
        raise InputError(f"{count} of {required} visible to torch {torch.__version__}; is the driver mounted?")
    names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(count)}))
    return f"{count} {names}" if count else "none: only the tiny model trains on a CPU"


def disk() -> str:
    """Return the working directory's free space: enough for a 7B run if there is a GPU, else for the tiny model."""
    has_gpu = importlib.util.find_spec("torch") is not None and gpu_count() > 0
    model, required = ("7B", _MIN_DISK) if has_gpu else ("tiny", _MIN_DISK_WITHOUT_GPU)
    free = shutil.disk_usage(Path.cwd()).free
    text = f"{free / 1e9:.1f} GB free in {Path.cwd()}"
    if free < required:
        fix = "free space, or start in another folder"
        raise InputError(f"{text}; training the {model} model needs {required / 1e9:.0f} GB: {fix}")
    return text


def data(uri: str) -> str:
    """Return the size of a file that can be read."""
    location = parse_location(uri)
    if isinstance(location, LocalFolder):
        return f"{uri}: {existing_file(uri).stat().st_size} bytes"
    return f"{uri}: {object_version(uri).split()[0]} bytes"


def out(uri: str) -> str:
    """Create an output folder and return that it is writable."""
    parse_location(uri).make()
    return f"{uri}: writable"
