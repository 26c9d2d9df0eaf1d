"""Progress of long work: a bar on a terminal, a log line at intervals elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

T = TypeVar("T")
logger = logging.getLogger(__name__)

tqdm.monitor_interval = 0  # its thread would not survive a fork of worker processes

_LOG_INTERVAL_S = 10.0
_PLURALS = {" batches": " batch", " queries": " query"}  # units that do not only append an s


def progress(items: Iterable[T], description: str, total: int | None = None, unit: str = "it") -> Iterator[T]:
    """Yield the items and show how many are done. `total` defaults to their length; `unit` starts with a space."""
    if not logger.isEnabledFor(logging.INFO):
        yield from items
        return
    if sys.stderr.isatty():
        with (
            logging_redirect_tqdm(),
            tqdm(items, description, total, unit=unit, ascii=True, dynamic_ncols=True, file=sys.stderr) as bar,
        ):
            yield from bar
        return
    total = len(items) if total is None and isinstance(items, Sized) else total
    start = logged = time.monotonic()
    done = 0
    for done, item in enumerate(items, 1):
        yield item
        if (now := time.monotonic()) - logged > _LOG_INTERVAL_S:
            logged = now
            of = f" of {total}" if total is not None else ""
            if done != total:  # the last line follows
                rate = done / (now - start)
                speed = f"{rate:.1f}/s" if rate >= 1 else f"{1 / rate:.1f} s each"
                left = f", {(total - done) / rate:.0f} s left" if total is not None else ""
                logger.info("%s: %d%s%s, %s%s", description, done, of, unit, speed, left)
    if done:
        units = _PLURALS.get(unit, unit.removesuffix("s")) if done == 1 else unit
        logger.info("%s: done, %d%s in %.1f s", description, done, units, time.monotonic() - start)
