"""Work that several processes share and that survives a kill: a list of batches with one result file per batch.

A batch that has a result is not processed again. Batches do not depend on the number of processes, so the results are
identical for any number.
"""

import json
import logging
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch

from rarft.distributed.launch import rank_and_size
from rarft.progress import progress
from rarft.storage.hashing import hash_text
from rarft.storage.location import Location

logger = logging.getLogger(__name__)


def join_processes() -> None:
    """Create a process group of the processes of torchrun, with a timeout longer than any work."""
    if rank_and_size()[1] > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("gloo", timeout=timedelta(days=7))


def _wait_for_all() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()


def _file_name(number: int) -> str:
    return f"{number:07d}.json"


class SharedWork:
    """Batches to process, and the folder with their results.

    Args:
        location: Folder for the results of several works.
        key: JSON value that the results depend on. Work with another key has another subfolder.
    """

    def __init__(self, location: Location, key: Any) -> None:
        self._folder = location.child(hash_text(json.dumps(key, sort_keys=True))[:16])

    def _finished(self, batches: int) -> set[int]:
        """Return the numbers of the batches that have results."""
        names = self._folder.sizes().keys()
        return {number for number in range(batches) if _file_name(number) in names}

    def _read(self, number: int) -> list[Any]:
        return list(json.loads(self._folder.read(_file_name(number))))

    def run(
        self,
        batches: Sequence[Any],
        work: Callable[[Any], list[Any]],
        description: str,
        is_current: Callable[[Any, list[Any]], bool] = lambda batch, result: True,
    ) -> list[list[Any]]:
        """Process this process's share of the batches, wait for the others, and return all results in order.

        Args:
            batches: The same batches on every process.
            work: Returns the result of a batch, a list of JSON values.
            description: Name of the work on the console.
            is_current: Checks whether the result of an earlier run is still that of its batch.
        """
        rank, size = rank_and_size()
        finished = self._finished(len(batches))
        if finished and rank == 0:
            logger.info("%s: resuming after %d of %d batches", description, len(finished), len(batches))
        # Shares are contiguous, so that few videos are read by two processes.
        share = -(-len(batches) // size)
        own = range(rank * share, min(len(batches), (rank + 1) * share))
        missing = [each for each in own if each not in finished or not is_current(batches[each], self._read(each))]
        for number in progress(missing, description, unit=" batches"):
            self._folder.write(_file_name(number), json.dumps(work(batches[number])).encode())
        _wait_for_all()
        if unshared := set(range(len(batches))) - self._finished(len(batches)):
            raise RuntimeError(f"{self._folder}: {len(unshared)} batches of other processes are missing; share --out")
        results = [self._read(number) for number in range(len(batches))]
        _wait_for_all()
        return results
