"""Validate an annotations file: every query is accepted, repaired or quarantined.

The first pass indexes what the checks of a query need from the other queries; the second checks item by item. Rows and
findings are written to disk as they come.
"""

import contextlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rarft.annotations.annotation_index import AnnotationIndex
from rarft.annotations.check_file import check_all, write_results
from rarft.annotations.context import ValidationContext
from rarft.annotations.counts import ValidationCounts
from rarft.annotations.findings import CATALOG, REPAIRS
from rarft.annotations.reader import read_items
from rarft.annotations.report import render_report
from rarft.annotations.schema import RIQ_JSONL
from rarft.annotations.split import SPLIT_FILES, Splitter, write_split
from rarft.annotations.videos import VideoInspector
from rarft.progress import progress
from rarft.storage.location import Location

logger = logging.getLogger(__name__)

QUARANTINE_JSONL = "quarantine.jsonl"
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"


@dataclass(frozen=True)
class ValidationSettings:
    """Settings of a validation.

    Attributes:
        tolerance: Seconds by which a segment may end after the video and still be clamped.
        repairs: Names of the repairs that are allowed.
        split: Fraction of the queries to train on, in (0, 1); None for no split.
        seed: Random seed for the split.
        excluded_videos: Hashes of the base names of videos that must not occur, from `video_hashes`.
        crop_times: Whether times of items with a crop count from its start: one of `CROP_TIMES`.
    """

    tolerance: float = 1.0
    repairs: frozenset[str] = frozenset(REPAIRS)
    split: float | None = None
    seed: int = 0
    excluded_videos: frozenset[int] = frozenset()
    crop_times: str = "auto"


def _index_file(path: Path, videos: VideoInspector | None) -> AnnotationIndex:
    index = AnnotationIndex(videos.files.resolve if videos else None)
    for item in progress(read_items(path), f"reading {path.name}", unit=" items"):
        index.add(item)
        if videos:
            videos.add(item)
    index.build()
    return index


def _check_file(
    annotations: Path, context: ValidationContext, folder: Path, splitter: Splitter | None, findings: BinaryIO
) -> ValidationCounts:
    """Run the second pass: write riq.jsonl and quarantine.jsonl into the folder, and each finding as a line."""
    counts = ValidationCounts()
    items = read_items(annotations)
    with (folder / RIQ_JSONL).open("wb") as kept, (folder / QUARANTINE_JSONL).open("wb") as quarantine:
        for result in write_results(check_all(items, context), kept, quarantine, findings):
            counts.merge(result.counts)
            if splitter is not None:
                splitter.add(result.videos)
    return counts


def _split_file(folder: Path, splitter: Splitter) -> dict[str, dict[str, Any]]:
    train, held_out = (folder / name for name in SPLIT_FILES.values())
    with (folder / RIQ_JSONL).open("rb") as rows, train.open("wb") as to_train, held_out.open("wb") as to_eval:
        return write_split(rows, splitter.training_videos(), to_train, to_eval)


def _write_report(path: Path, report: dict[str, Any], findings: BinaryIO) -> None:
    """Write the report with all findings, which are copied line by line."""
    findings.seek(0)
    head = json.dumps(report, indent=1)
    with path.open("wb") as file:
        file.write(head[:-2].encode() + b',\n "findings": [')
        for number, line in enumerate(findings):
            file.write((b"\n  " if number == 0 else b",\n  ") + line.rstrip(b"\n"))
        file.write(b"\n ]\n}\n")


def validate(
    annotations: Path, out: Location, videos: VideoInspector | None, settings: ValidationSettings
) -> dict[str, Any]:
    """Validate a file and write riq.jsonl, quarantine.jsonl, report.html and, last, report.json.

    Args:
        annotations: JSON list or JSON Lines, plain or gzipped.
        out: Folder to write to. With a split, riq.train.jsonl and riq.eval.jsonl are written too.
        videos: Index of the videos; None not to open videos.
        settings: Settings of the validation.

    Returns:
        The content of report.json without the findings: `counts`, `reasons` (quarantined queries by primary reason),
        `codes` (findings by code), `statistics` and, with a split, `splits`.

    Raises:
        InputError: The file cannot be read; then nothing is written.
    """
    index = _index_file(annotations, videos)
    if videos is not None:
        videos.inspect_all()
    context = ValidationContext(
        annotations.name, settings.tolerance, videos, index, settings.repairs, settings.excluded_videos,
        settings.crop_times,
    )  # fmt: skip
    if context.has_relative_times and index.crops.with_crop:
        logger.info("times of %d items with a crop count from its start; converting them", index.crops.with_crop)
    splitter = Splitter(settings.split, settings.seed) if settings.split is not None else None
    with out.write_files(REPORT_JSON, stale=list(SPLIT_FILES.values())) as folder, contextlib.ExitStack() as files:
        findings_path = folder / ".findings.jsonl"
        files.callback(findings_path.unlink)
        findings = files.enter_context(findings_path.open("w+b"))
        counts = _check_file(annotations, context, folder, splitter, findings)
        report = {"annotations": annotations.name, **counts.as_dict()}
        report["statistics"]["queries_per_video"] = index.queries_per_video
        if splitter is not None:
            report["splits"] = _split_file(folder, splitter)
        (folder / REPORT_HTML).write_text(render_report(report, counts.examples), encoding="utf-8")
        _write_report(folder / REPORT_JSON, report, findings)
    return report


def summary(report: dict[str, Any]) -> str:
    """Return the report as a few lines of text."""
    counts = report["counts"]
    lines = [
        f"{counts['queries']} queries in {counts['items']} items: {counts['accepted']} accepted, "
        f"{counts['repaired']} repaired, {counts['quarantined']} quarantined"
    ]
    for name, number in report["reasons"].items():
        lines.append(f"  {number} quarantined: {name}. {CATALOG[name].explanation}")
    for name, split in report.get("splits", {}).items():
        lines.append(
            f"  {name}: {split['queries']} queries of {split['videos']} videos, {split['answerable']} answerable, "
            f"{split['refusable']} refusable"
        )
    return "\n".join(lines)
