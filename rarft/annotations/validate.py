"""Validation of a whole annotations file: every query ends accepted, repaired or quarantined.

Two passes: a survey of what queries must know of each other, then the checks, item by item. Rows and findings
go to disk as they come.
"""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from rarft.annotations.check_file import check_all, write_checked
from rarft.annotations.context import ValidationContext
from rarft.annotations.counts import ValidationCounts
from rarft.annotations.file_index import AnnotationIndex, videos_of
from rarft.annotations.findings import CHECK_OF_CODE, REPAIRS
from rarft.annotations.reader import read_items
from rarft.annotations.report import render_report
from rarft.annotations.schema import RIQ_JSONL, Sample
from rarft.annotations.split import SPLIT_FILES, Splitter, rows_of, split_rows
from rarft.annotations.videos import ProbeCache, VideoIndex
from rarft.progress import progress
from rarft.storage.files import Location, write_files

QUARANTINE_JSONL = "quarantine.jsonl"
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"


@dataclass(frozen=True)
class ValidationSettings:
    """How to validate.

    Attributes:
        tolerance: seconds by which a segment may run past the video's end and be clamped.
        probe_videos: whether videos are looked for and opened.
        video_cache: file that remembers what videos are; None for the user's cache folder.
        repairs: names of the repairs that may be made.
        split: share of the queries to train on, in (0, 1); None for no split.
        seed: of the split.
        against: annotations that must share no video with these.
    """

    tolerance: float = 1.0
    probe_videos: bool = True
    video_cache: Path | None = None
    repairs: frozenset[str] = frozenset(REPAIRS)
    split: float | None = None
    seed: int = 0
    against: Path | None = None


def _survey(path: Path, videos: VideoIndex | None) -> AnnotationIndex:
    survey = AnnotationIndex(videos.identity if videos else None)
    for item in progress(read_items(path), f"reading {path.name}", unit=" items"):
        survey.add(item)
    survey.finish()
    return survey


def _check_all(
    annotations: Path, around: ValidationContext, folder: Path, splitter: Splitter | None, findings: BinaryIO
) -> ValidationCounts:
    """Second pass: write riq.jsonl and quarantine.jsonl into `folder`, and every finding as a line."""
    ledger = ValidationCounts()
    items = read_items(annotations)
    if around.videos is not None:
        items = around.videos.prefetch_probes(items)
    with (folder / RIQ_JSONL).open("wb") as kept, (folder / QUARANTINE_JSONL).open("wb") as quarantine:
        for part in write_checked(check_all(items, around), kept, quarantine, findings):
            ledger.merge(part.ledger)
            if splitter is not None:
                splitter.add(part.videos)
    return ledger


def _write_report(path: Path, report: dict[str, Any], findings: BinaryIO) -> None:
    """The report with all its findings, which are copied line by line from where they were gathered."""
    findings.seek(0)
    head = json.dumps(report, indent=1)
    with path.open("wb") as file:
        file.write(head[:-2].encode() + b',\n "findings": [')
        for number, line in enumerate(findings):
            file.write((b"\n  " if number == 0 else b",\n  ") + line.rstrip(b"\n"))
        file.write(b"\n ]\n}\n")


def validate(
    annotations: Path,
    out: Location,
    video_root: Location | None,
    settings: ValidationSettings,
    beside: Location | None = None,
) -> dict[str, Any]:
    """Validate a file into `out`: riq.jsonl, quarantine.jsonl, report.html and, last, report.json.

    Args:
        annotations: JSON list, JSON Lines, or either gzipped.
        out: folder to write into; with a split, riq.train.jsonl and riq.eval.jsonl too.
        video_root: where videos lie, a path or a URI; by default beside the annotations.
        settings: how.
        beside: folder that the annotations lie in, where that is not the one that they were fetched to.

    Returns:
        The report but for its findings, which are in report.json: `counts`, `reasons` (quarantined queries by
        primary reason), `codes` (findings by code), `statistics` and, with a split, `splits`.

    Raises:
        InputError: the file cannot be read, or the root holds no video; then nothing is written.
    """
    videos = None
    if settings.probe_videos:
        cache = ProbeCache(settings.video_cache)
        videos = VideoIndex(
            video_root or beside or annotations.parent, must_hold_videos=video_root is not None, cache=cache
        )
    leaked = videos_of(read_items(settings.against)) if settings.against else frozenset()
    survey = _survey(annotations, videos)
    around = ValidationContext(annotations.name, settings.tolerance, videos, survey, settings.repairs, leaked)
    splitter = Splitter(settings.split, settings.seed) if settings.split is not None else None
    with (
        write_files(out, last=REPORT_JSON, stale=list(SPLIT_FILES.values())) as folder,
        contextlib.ExitStack() as files,
    ):
        findings_path = folder / ".findings.jsonl"
        files.callback(findings_path.unlink)
        findings = files.enter_context(findings_path.open("w+b"))
        ledger = _check_all(annotations, around, folder, splitter, findings)
        report = {"annotations": annotations.name, **ledger.as_dict()}
        report["statistics"]["queries_per_video"] = survey.queries_per_video
        if splitter is not None:
            report["splits"] = _split(folder, splitter)
        (folder / REPORT_HTML).write_text(render_report(report, ledger.examples), encoding="utf-8")
        _write_report(folder / REPORT_JSON, report, findings)
    return report


def _split(folder: Path, splitter: Splitter) -> dict[str, dict[str, Any]]:
    train, held_out = (folder / name for name in SPLIT_FILES.values())
    with (folder / RIQ_JSONL).open("rb") as rows, train.open("wb") as to_train, held_out.open("wb") as to_eval:
        decoder = msgspec.json.Decoder(Sample)
        return split_rows(rows_of(rows, decoder), splitter.training_videos(), to_train, to_eval)


def summary(report: dict[str, Any]) -> str:
    """The report in a few lines for a console."""
    counts = report["counts"]
    lines = [
        f"{counts['queries']} queries in {counts['items']} items: {counts['accepted']} accepted, "
        f"{counts['repaired']} repaired, {counts['quarantined']} quarantined"
    ]
    explanations = {check.name: check.explanation for check in CHECK_OF_CODE.values()}
    for name, number in report["reasons"].items():
        lines.append(f"  {number} quarantined: {name.replace('-', ' ')}. {explanations[name]}")
    for name, split in report.get("splits", {}).items():
        lines.append(
            f"  {name}: {split['queries']} queries of {split['videos']} videos, {split['answerable']} answerable, "
            f"{split['refusable']} refusable"
        )
    return "\n".join(lines)
