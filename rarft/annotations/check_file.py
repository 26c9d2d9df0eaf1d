"""The second pass over a file: every item checked, in the file's order, on all cores.

Batches of items go to worker processes, which are forked after the survey and so know it without a copy. An
item that may be a duplicate is left to this process, which alone sees the items in order.
"""

import multiprocessing
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, BinaryIO

import msgspec

from rarft.annotations.checks import check_item
from rarft.annotations.context import ValidationContext
from rarft.annotations.counts import ValidationCounts
from rarft.annotations.encoding import compact_json, json_as_read
from rarft.annotations.split import video_key
from rarft.progress import progress

_BATCH = 500  # items


@dataclass
class BatchResult:
    """What checking some items gave, as it is to be written.

    Attributes:
        kept: lines of riq.jsonl.
        quarantined: lines of quarantine.jsonl.
        findings: lines of JSON.
        ledger: the counts.
        videos: (video, whether refusable) of each kept query, for the split.
    """

    kept: bytes = b""
    quarantined: bytes = b""
    findings: bytes = b""
    ledger: ValidationCounts = field(default_factory=ValidationCounts)
    videos: list[tuple[int, bool]] = field(default_factory=list)


def check_items(items: Iterable[tuple[int, Any]], around: ValidationContext) -> BatchResult:
    """Check items, each with its index in the file."""
    kept, quarantined, lines = [], [], []
    result = BatchResult()
    for index, item in items:
        about_item, outcomes = check_item(item, index, around)
        result.ledger.items += 1
        result.ledger.note(about_item)
        lines += [compact_json(finding) for finding in about_item]
        for outcome in outcomes:
            result.ledger.record(about_item, outcome)
            result.ledger.note(outcome.findings)
            lines += [compact_json(finding) for finding in outcome.findings]
            if outcome.sample is not None:
                kept.append(compact_json(outcome.sample))
                result.videos.append((video_key(outcome.sample.video), outcome.sample.task_type == "refusable"))
                continue
            found = [msgspec.to_builtins(finding) for finding in (*about_item, *outcome.findings)]
            quarantined.append(json_as_read({**(outcome.quarantined or {}), "_findings": found}))
    result.kept, result.quarantined, result.findings = (
        b"".join(line + b"\n" for line in group) for group in (kept, quarantined, lines)
    )
    return result


_around: ValidationContext | None = None  # of a worker process, from before it was forked


def _check_batch(batch: list[tuple[int, Any]]) -> list[BatchResult | tuple[int, Any]]:
    """Check a batch in a worker; an item that may be a duplicate comes back as it is."""
    assert _around is not None
    parts: list[BatchResult | tuple[int, Any]] = []
    stretch: list[tuple[int, Any]] = []
    for indexed in batch:
        if not _around.survey.may_be_duplicate(indexed[1]):
            stretch.append(indexed)
            continue
        parts += [check_items(stretch, _around), indexed]
        stretch = []
    return [*parts, check_items(stretch, _around)]


def _batches(items: Iterator[Any], total: int) -> Iterator[list[tuple[int, Any]]]:
    indexed = enumerate(progress(items, "checking", total=total, unit=" items"))
    while batch := list(islice(indexed, _BATCH)):
        yield batch


def check_all(items: Iterator[Any], around: ValidationContext) -> Iterator[BatchResult]:
    """Check the items of a file; what is yielded is in the file's order.

    Where videos are looked at, that is what takes the time, and it has threads of its own. A process that has
    other threads already checks alone: a fork would copy the locks that they hold.
    """
    global _around
    workers = os.cpu_count() or 1
    batches = _batches(items, around.survey.items)
    alone = workers == 1 or threading.active_count() > 1 or around.survey.items <= _BATCH
    if around.videos is not None or alone:
        for batch in batches:
            yield check_items(batch, around)
        return
    _around = around
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        for parts in pool.imap(_check_batch, batches):
            for part in parts:
                yield part if isinstance(part, BatchResult) else check_items([part], around)


def write_checked(
    checked: Iterable[BatchResult], kept: BinaryIO, quarantine: BinaryIO, findings: BinaryIO
) -> Iterator[BatchResult]:
    """Write what was checked as it comes, and hand it on."""
    for part in checked:
        kept.write(part.kept)
        quarantine.write(part.quarantined)
        findings.write(part.findings)
        yield part
