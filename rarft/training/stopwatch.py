"""Time of each part of a training step."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up seconds by part. Work that is queued on a GPU counts for the part that queued it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._lap_start = time.perf_counter()

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the time of the block to a part."""
        start = self._now()
        try:
            yield
        finally:
            self._seconds[name] += self._now() - start

    def lap(self) -> dict[str, float]:
        """Return the seconds of each part since the last lap, and of all of it as `total`; start the next lap."""
        now = self._now()
        seconds = {**self._seconds, "total": now - self._lap_start}
        self._seconds.clear()
        self._lap_start = now
        return seconds
