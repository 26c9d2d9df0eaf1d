"""Where a training step's time goes."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class Stopwatch:
    """Adds up seconds by part; work queued on a GPU counts for the part that queued it."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = defaultdict(float)
        self._lap = time.perf_counter()

    @staticmethod
    def _now() -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what happens within."""
        started = self._now()
        try:
            yield
        finally:
            self._seconds[name] += self._now() - started

    def lap(self) -> dict[str, float]:
        """Seconds of each part since the last lap, and of all together as `total`; starts the next lap."""
        now = self._now()
        seconds = {**self._seconds, "total": now - self._lap}
        self._seconds.clear()
        self._lap = now
        return seconds
