"""Checks of the environment of this machine: folders, locale, limits, object store, Hub, tracker, CUDA driver.

Each returns what it found, raises `InputError` if something is wrong, and `SkippedCheckError` if it does not apply.
"""

import ctypes
import email.utils
import importlib.util
import locale
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarft.errors import InputError
from rarft.hub import hub_endpoint, is_offline
from rarft.network import find_unreachable
from rarft.storage import s3
from rarft.user_cache import cache_folder, find_problem

_MIN_TEMPORARY = 2e9  # bytes: videos and checkpoints of a store are downloaded to temporary files
_MIN_OPEN_FILES = 1024
_MIN_SHARED_MEMORY = 1e9  # bytes: NCCL's buffers between several GPUs of a machine
_MAX_CLOCK_SKEW_S = 300  # stores reject requests that are older than 15 minutes
_DRIVER = "libcuda.so.1"


class SkippedCheckError(Exception):
    """A check does not apply to this machine."""


def caches() -> str:
    """Return the folder of caches; it must be writable."""
    folder = cache_folder()
    if problem := find_problem(folder):
        raise InputError(f"{problem}; set XDG_CACHE_HOME and HF_HOME to writable folders, or commands cache nothing")
    models = Path(os.environ.get("HF_HOME") or Path(str(folder)).parent / "huggingface")
    if problem := find_problem(models):
        raise InputError(f"{problem}; set HF_HOME to a writable folder for downloaded models")
    return f"{folder}, models in {models}"


def text_encoding() -> str:
    """Return the locale and its encoding, which file names and output use."""
    encoding = sys.getfilesystemencoding()
    name = ".".join(part or "C" for part in locale.getlocale(locale.LC_CTYPE)[:1]) or "C"
    if encoding.lower().replace("-", "") != "utf8":
        raise InputError(f"{encoding}: file names cannot be written in it; set LC_ALL=C.UTF-8")
    return f"{name}, {encoding}"


def temporary_space() -> str:
    """Return the free space of the folder for temporary files, which must be writable."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        raise InputError("TMPDIR: no folder for temporary files can be written; set it to one") from error
    configured = os.environ.get("TMPDIR")
    if configured and Path(folder).resolve() != Path(configured).resolve():
        raise InputError(f"TMPDIR={configured}: cannot be written, so {folder} is used; create it, or unset TMPDIR")
    free = shutil.disk_usage(folder).free
    if free < _MIN_TEMPORARY:
        raise InputError(f"{free / 1e9:.1f} GB free in {folder}; set TMPDIR to a folder with more")
    return f"{free / 1e9:.0f} GB free in {folder}"


def limits() -> str:
    """Return the limits of this process on open files and file sizes."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    size, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if 0 <= files < _MIN_OPEN_FILES:
        raise InputError(f"{files} open files; raise it: ulimit -n 65536")
    if size != resource.RLIM_INFINITY:
        raise InputError(f"files of at most {size} bytes; raise it: ulimit -f unlimited")
    return f"{files if files >= 0 else 'any number of'} open files"


def shared_memory(gpus: int, folder: str = "/dev/shm") -> str:
    """Return the size of the shared memory, which must be large enough for several GPUs."""
    if not Path(folder).is_dir():
        raise InputError(f"{folder}: missing; mount a memory-backed volume there")
    size = shutil.disk_usage(folder).total
    if gpus > 1 and size < _MIN_SHARED_MEMORY:
        raise InputError(f"{folder}: {size / 1e6:.0f} MB for {gpus} GPUs; use docker run --shm-size 16g or a volume")
    return f"{size / 1e9:.1f} GB in {folder}"


def _clock_skew(headers: Mapping[str, str]) -> float:
    """Return the seconds by which this machine's clock is ahead of a server's; 0 if the server does not report it."""
    date = email.utils.parsedate_to_datetime(headers["date"]) if headers.get("date") else None
    return time.time() - date.timestamp() if date else 0.0


def store() -> str:
    """Return endpoint and region of the object store, which must accept the signature of a request."""
    from botocore.exceptions import ClientError

    client = s3.client()
    endpoint, region = client.meta.endpoint_url, client.meta.region_name
    with s3.wrap_s3_errors(endpoint, "read"):
        try:
            answer: dict[str, Any] = client.list_buckets()
        except ClientError as error:
            if error.response["Error"]["Code"] != "AccessDenied":  # signed well, but may not list buckets
                raise
            answer = error.response
    skew = _clock_skew(answer["ResponseMetadata"]["HTTPHeaders"])
    if abs(skew) > _MAX_CLOCK_SKEW_S:
        raise InputError(f"{endpoint}: this machine's clock differs by {skew:.0f} s; synchronize it")
    return f"{endpoint} accepts requests signed for {region}, clocks differ by {abs(skew):.0f} s"


def hub() -> str:
    """Return the endpoint of the Hugging Face Hub, which must be reachable."""
    if is_offline():
        raise SkippedCheckError("HF_HUB_OFFLINE is set; models must be in folders or in the cache")
    if problem := find_unreachable(hub_endpoint()):
        fix = "check the network and HF_ENDPOINT, or set HF_HUB_OFFLINE=1 and use folders"
        raise InputError(f"{hub_endpoint()}: unreachable ({problem}); {fix}")
    return f"{hub_endpoint()} is reachable"


def tracker() -> str:
    """Return whether a W&B run would be online; its credentials and project's name must be valid."""
    if not importlib.util.find_spec("wandb"):
        raise SkippedCheckError("wandb is not installed; metrics go to the training log only")
    from rarft.training.tracking import check_wandb, find_offline_reason  # imports transformers

    check_wandb()
    if reason := find_offline_reason():
        raise SkippedCheckError(f"{reason}; W&B runs are offline")
    return "W&B is reachable"


def cuda_driver() -> str:
    """Return the CUDA version of the driver, which must not be older than that of torch."""
    import torch

    if not torch.version.cuda:
        raise SkippedCheckError(f"torch {torch.__version__} is built without CUDA")
    try:
        driver = ctypes.CDLL(_DRIVER)
    except OSError as error:
        raise SkippedCheckError("no NVIDIA driver") from error
    version = ctypes.c_int()
    driver.cuDriverGetVersion(ctypes.byref(version))
    major, minor = version.value // 1000, version.value % 1000 // 10
    text = f"driver for CUDA {major}.{minor}, torch for CUDA {torch.version.cuda}"
    if major < int(torch.version.cuda.split(".")[0]):
        raise InputError(f"{text}: update the driver, or install torch for CUDA {major}")
    return text
