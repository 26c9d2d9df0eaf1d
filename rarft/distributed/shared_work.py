"""Work that several processes share and that survives being killed: batches, each written down when it is done.

A batch's result is a file of its own. What is found of the same work is not done again; the batches are the same
whoever does them, so that the result is the same to the byte.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch

from rarft.progress import progress
from rarft.storage import s3
from rarft.storage.files import Location, join_path, local_path, remove_folder, write_atomically

_WHAT = "--out"


def rank_and_size() -> tuple[int, int]:
    """This process among those that a launcher started."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def join_processes() -> None:
    """Let the processes that torchrun started wait for each other; how unevenly they work does not matter."""
    if rank_and_size()[1] > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=timedelta(days=7))


def wait_for_all() -> None:
    """Wait until every process has come here."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


class SharedWork:
    """Results of batches, in a folder or under a prefix of a store."""

    def __init__(self, place: Location, identity: Any) -> None:
        """
        Args:
            place: folder for the results; several works may share it.
            identity: what the results depend on, as JSON has it: another identity is another work.
        """
        digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
        self._place = join_path(place, digest)

    def _write(self, number: int, result: list[str]) -> None:
        name, content = self._name(number), json.dumps(result).encode()
        if s3.is_object_uri(self._place):
            s3.write(join_path(self._place, name), content, _WHAT)
        else:
            with write_atomically(local_path(self._place, _WHAT) / name) as temporary:
                temporary.write_bytes(content)

    def _read(self, number: int) -> list[str]:
        name = self._name(number)
        if s3.is_object_uri(self._place):
            content = s3.read(join_path(self._place, name), _WHAT)
        else:
            content = (local_path(self._place, _WHAT) / name).read_bytes()
        return list(json.loads(content))

    @staticmethod
    def _name(number: int) -> str:
        return f"{number:07d}.json"

    def done(self, batches: int) -> set[int]:
        """Numbers of the batches that are done."""
        if s3.is_object_uri(self._place):
            names = set(s3.sizes(self._place, _WHAT))
        else:
            folder = local_path(self._place, _WHAT)
            names = {path.name for path in folder.glob("*.json")} if folder.is_dir() else set()
        return {number for number in range(batches) if self._name(number) in names}

    def run(self, batches: Sequence[Any], work: Callable[[Any], list[str]], what: str) -> list[list[str]]:
        """Do this process's share of the batches, wait for the others, and return all results in order.

        Args:
            batches: the same on every process.
            work: the result of one.
            what: for the line of progress.

        Raises:
            RuntimeError: another process's result is not found: they do not share the folder.
        """
        rank, size = rank_and_size()
        done = self.done(len(batches))
        if done and rank == 0:
            print(f"{what}: {len(done)} of {len(batches)} batches were done before", flush=True)
        # Side by side, so that few videos are read by two processes.
        share = -(-len(batches) // size)
        mine = [number for number in range(rank * share, min(len(batches), (rank + 1) * share)) if number not in done]
        for number in progress(mine, what, unit=" batches"):
            self._write(number, work(batches[number]))
        wait_for_all()
        if missing := set(range(len(batches))) - self.done(len(batches)):
            raise RuntimeError(f"{self._place}: {len(missing)} batches of other processes are not there: share --out")
        results = [self._read(number) for number in range(len(batches))]
        wait_for_all()
        return results

    def forget(self) -> None:
        """Remove the results, and the folder that works share once it is empty."""
        if rank_and_size()[0] == 0:
            remove_folder(self._place)
            if not s3.is_object_uri(self._place):
                with contextlib.suppress(OSError):  # another work's results are there
                    local_path(self._place, _WHAT).parent.rmdir()
