"""The machines of a run: which process speaks for its machine, and whether they all see one folder."""

import time
import uuid
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

_barrier_count = 0  # of this process; all of them come to as many
_LATE = 10.0  # seconds in which a network file system must show a new name
_TIMEOUT_S = 120.0  # seconds in which a shared folder must show what another machine wrote


def barrier() -> None:
    """Wait until every process has come here, however long one works: a collective would give up after a while."""
    size = PartialState().num_processes
    if size == 1:
        return
    global _barrier_count
    _barrier_count += 1
    store, key = torch.distributed.distributed_c10d._get_default_store(), f"rarft/barrier/{_barrier_count}"
    store.add(key, 1)
    while store.add(key, 0) < size:
        time.sleep(0.05)


def is_local_main_process() -> bool:
    """Whether this process speaks for its machine."""
    return bool(PartialState().local_process_index == 0)


def broadcast_from_main(value: Any) -> Any:
    """What the main process holds, on every process."""
    if PartialState().num_processes == 1:
        return value
    values = [value]
    broadcast_object_list(values)
    return values[0]


def all_gather(value: Any) -> list[Any]:
    """What each process holds, on every process."""
    return [value] if PartialState().num_processes == 1 else list(gather_object([value]))


def folder_is_shared(folder: Path) -> bool:
    """Whether all processes see the same folder. To be called by all of them."""
    state = PartialState()
    if state.num_processes == 1:
        return True
    token = folder / f".shared-{broadcast_from_main(uuid.uuid4().hex)}"
    if state.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()
    state.wait_for_everyone()
    ends = time.monotonic() + _LATE
    while not token.exists() and time.monotonic() < ends:
        time.sleep(0.5)
    seen = all(all_gather(token.exists()))
    if state.is_main_process:
        token.unlink()
    return seen


def listing(folder: Path) -> dict[str, int]:
    """Size in bytes of every file of a folder, as this machine sees it."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


def wait_until_visible(folder: Path, files: dict[str, int]) -> None:
    """Wait until this machine sees files that others wrote: a network file system may be late.

    Raises:
        RuntimeError: it does not in two minutes.
    """
    ends = time.monotonic() + _TIMEOUT_S
    while missing := files.items() - listing(folder).items():
        if time.monotonic() > ends:
            name, size = min(missing)
            raise RuntimeError(f"{folder / name}: another machine wrote {size} bytes of it that are not seen here")
        time.sleep(0.5)
