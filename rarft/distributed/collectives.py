"""Collective operations of a run's processes, and whether their machines share a folder."""

import itertools
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from rarft.errors import InputError
from rarft.storage.location import LocalFolder

T = TypeVar("T")

_barrier_numbers = itertools.count()  # equal on all processes
_VISIBLE_TIMEOUT_S = 10.0  # within which a network file system shows a new file name
_FILES_TIMEOUT_S = 120.0  # within which a shared folder shows what another machine wrote


def barrier() -> None:
    """Wait until every process calls this, with no timeout, unlike a collective of the process group."""
    size = PartialState().num_processes
    if size == 1:
        return
    store, key = torch.distributed.distributed_c10d._get_default_store(), f"rarft/barrier/{next(_barrier_numbers)}"
    store.add(key, 1)
    while store.add(key, 0) < size:
        time.sleep(0.05)


def broadcast_from_main(value: T) -> T:
    """Return the main process's value on every process."""
    return value if PartialState().num_processes == 1 else broadcast_object_list([value])[0]


def all_gather(value: T) -> list[T]:
    """Return the values of all processes, by rank, on every process."""
    return [value] if PartialState().num_processes == 1 else list(gather_object([value]))


def run_on_main(function: Callable[..., T], *arguments: Any) -> T:
    """Call a function on the main process, however long it takes, and return its result on every process.

    Raises:
        InputError: The function raised it. It is raised on every process.
    """
    outcome: Any = None
    if PartialState().is_main_process:
        try:
            outcome = function(*arguments)
        except InputError as error:
            outcome = error
    barrier()
    outcome = broadcast_from_main(outcome)
    if isinstance(outcome, InputError):
        raise outcome
    return outcome


def is_shared_folder(folder: Path) -> bool:
    """Check whether all processes see the same folder. To be called by all of them."""
    state = PartialState()
    if state.num_processes == 1:
        return True
    token = folder / f".shared-{broadcast_from_main(uuid.uuid4().hex)}"
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()
    state.wait_for_everyone()
    deadline = time.monotonic() + _VISIBLE_TIMEOUT_S
    while not token.exists() and time.monotonic() < deadline:
        time.sleep(0.5)
    is_shared = all(all_gather(token.exists()))
    if state.is_main_process:
        token.unlink()
    return is_shared


def wait_until_visible(folder: Path, files: dict[str, int]) -> None:
    """Wait until this machine sees files, with their sizes in bytes, that other machines wrote.

    Raises:
        RuntimeError: A file is missing or has a different size after two minutes.
    """
    deadline = time.monotonic() + _FILES_TIMEOUT_S
    while pending := files.items() - LocalFolder(folder).sizes().items():
        if time.monotonic() > deadline:
            name, size = min(pending)
            raise RuntimeError(f"{folder / name}: this machine does not see the {size} bytes that another one wrote")
        time.sleep(0.5)
