"""The progress line of a long piece of work: a bar on a terminal, a line now and then in a log."""

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

tqdm.monitor_interval = 0  # no thread that would be there when worker processes are forked

_LOG_INTERVAL = 10.0  # seconds between two lines where there is no terminal


def progress(items: Iterable[T], what: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield the items, showing how far the work is."""
    on_terminal = sys.stderr.isatty()
    with tqdm(
        items, desc=what, total=total, unit=unit, mininterval=0.1 if on_terminal else _LOG_INTERVAL,
        ascii=True, dynamic_ncols=on_terminal, file=sys.stderr,
    ) as bar:  # fmt: skip
        yield from bar
