"""CPU time of a function, for the benchmarks."""

import statistics
import time
from collections.abc import Callable
from typing import Any


def cpu_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the median CPU seconds of a function."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)
