"""What the benchmarks time with."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def cpu_seconds(work: Callable[[], Any], repeats: int) -> float:
    """Median CPU seconds of a piece of work."""
    times = []
    for _ in range(repeats):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return statistics.median(times)
