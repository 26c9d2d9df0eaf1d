"""The second pass over a file: check every item in the file's order, on all cores.

Batches of items go to worker processes, which are forked after the first pass and so share its index. Items that may
be duplicates are checked in the parent process, which sees the items in order.
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
from rarft.annotations.encoding import ascii_json, compact_json
from rarft.annotations.split import video_key
from rarft.progress import progress

_BATCH = 500  # items


@dataclass
class BatchResult:
    """Result of checking some items, encoded for the output files."""

    kept: bytes = b""  # lines of riq.jsonl
    quarantined: bytes = b""  # lines of quarantine.jsonl
    findings: bytes = b""  # lines of JSON
    counts: ValidationCounts = field(default_factory=ValidationCounts)
    videos: list[tuple[int, bool]] = field(default_factory=list)  # per kept query: video key, whether it is refusable


def check_items(items: Iterable[tuple[int, Any]], context: ValidationContext) -> BatchResult:
    """Check items, each given with its index in the file."""
    kept, quarantined, lines = [], [], []
    result = BatchResult()
    for index, item in items:
        item_findings, outcomes = check_item(item, index, context)
        result.counts.totals["items"] += 1
        result.counts.add_findings(item_findings)
        lines += [compact_json(finding) for finding in item_findings]
        for outcome in outcomes:
            result.counts.add_query(item_findings, outcome)
            result.counts.add_findings(outcome.findings)
            lines += [compact_json(finding) for finding in outcome.findings]
            if outcome.sample is not None:
                kept.append(compact_json(outcome.sample))
                result.videos.append((video_key(outcome.sample.video), outcome.sample.task_type == "refusable"))
                continue
            findings = [msgspec.to_builtins(finding) for finding in (*item_findings, *outcome.findings)]
            quarantined.append(ascii_json({**(outcome.quarantined or {}), "_findings": findings}))
    result.kept, result.quarantined, result.findings = (
        b"".join(line + b"\n" for line in group) for group in (kept, quarantined, lines)
    )
    return result


_context: ValidationContext | None = None  # in a worker process: inherited when it was forked


def _check_batch(batch: list[tuple[int, Any]]) -> list[BatchResult | tuple[int, Any]]:
    """Check a batch in a worker process. An item that may be a duplicate is returned unchecked."""
    assert _context is not None
    parts: list[BatchResult | tuple[int, Any]] = []
    pending: list[tuple[int, Any]] = []
    for indexed in batch:
        if not _context.index.may_be_duplicate(indexed[1]):
            pending.append(indexed)
            continue
        parts += [check_items(pending, _context), indexed]
        pending = []
    return [*parts, check_items(pending, _context)]


def _batches(items: Iterator[Any], total: int) -> Iterator[list[tuple[int, Any]]]:
    indexed = enumerate(progress(items, "checking", total=total, unit=" items"))
    while batch := list(islice(indexed, _BATCH)):
        yield batch


def check_all(items: Iterator[Any], context: ValidationContext) -> Iterator[BatchResult]:
    """Check the items of a file and yield the results in its order.

    Only one process is used if videos are opened, since that takes most of the time and has its own threads, or if
    this process has other threads, since a fork would copy the locks that they hold.
    """
    global _context
    workers = os.cpu_count() or 1
    batches = _batches(items, context.index.items)
    is_small = workers == 1 or context.index.items <= _BATCH
    if is_small or context.videos is not None or threading.active_count() > 1:
        for batch in batches:
            yield check_items(batch, context)
        return
    _context = context
    with multiprocessing.get_context("fork").Pool(workers) as pool:
        for parts in pool.imap(_check_batch, batches):
            for part in parts:
                yield part if isinstance(part, BatchResult) else check_items([part], context)


def write_results(
    results: Iterable[BatchResult], kept: BinaryIO, quarantine: BinaryIO, findings: BinaryIO
) -> Iterator[BatchResult]:
    """Write each result to the output files and yield it."""
    for result in results:
        kept.write(result.kept)
        quarantine.write(result.quarantined)
        findings.write(result.findings)
        yield result
