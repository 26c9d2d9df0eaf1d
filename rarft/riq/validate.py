"""Validation of a whole annotations file: every query ends accepted, repaired or quarantined."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import msgspec

from rarft.progress import progress
from rarft.riq.checks import Outcome, Surroundings, answerable_queries, check_item
from rarft.riq.findings import CHECK_OF_CODE, Finding
from rarft.riq.reading import read_items
from rarft.riq.report import render_report
from rarft.riq.schema import RIQ_JSONL
from rarft.riq.videos import VideoIndex
from rarft.storage import write_files

QUARANTINE_JSONL = "quarantine.jsonl"
REPORT_JSON = "report.json"
REPORT_HTML = "report.html"


@dataclass(frozen=True)
class ValidationSettings:
    """How strictly to validate.

    Attributes:
        tolerance: seconds by which a segment may run past the video's end and be clamped.
        probe_videos: whether videos are looked for and opened.
    """

    tolerance: float = 1.0
    probe_videos: bool = True


@dataclass
class Counts:
    """Queries by what became of them; `items` counts items."""

    items: int = 0
    queries: int = 0
    accepted: int = 0
    repaired: int = 0
    quarantined: int = 0


def primary_reason(findings: list[Finding]) -> Finding:
    """Of the errors that quarantine a query, the one that counts: the lowest kind, the first found of it."""
    return min((f for f in findings if f.severity == "error"), key=lambda finding: finding.check.kind)


def _survey(path: Path, around: Surroundings) -> int:
    """First pass: reference queries and contradictions of each video. Returns the number of items."""
    references: dict[str, dict[str, None]] = {}
    marked: dict[tuple[str, str], bool] = {}
    items = 0
    for item in progress(read_items(path), f"reading {path.name}", unit=" items"):
        items += 1
        for video, query, answerable in answerable_queries(item):
            if answerable:
                references.setdefault(video, {}).setdefault(query)
            if marked.setdefault((video, query), answerable) is not answerable:
                around.contradictions.add((video, query))
    around.references = {video: list(queries) for video, queries in references.items()}
    return items


def _write_line(file: TextIO, row: Any) -> None:
    file.write(json.dumps(row) + "\n")


class _Ledger:
    """Counts what became of the queries, and collects the findings for the report."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.findings: list[Finding] = []
        self.reasons: Counter[str] = Counter()

    def record(self, about_item: list[Finding], outcomes: list[Outcome]) -> None:
        self.counts.items += 1
        self.findings += about_item
        for outcome in outcomes:
            self.counts.queries += 1
            self.findings += outcome.findings
            concerned = [*about_item, *outcome.findings]
            if outcome.sample is None:
                self.counts.quarantined += 1
                self.reasons[primary_reason(concerned).check.name] += 1
            elif any(finding.check.repairs for finding in concerned):
                self.counts.repaired += 1
            else:
                self.counts.accepted += 1


def validate(annotations: Path, out: Path, video_root: Path | None, settings: ValidationSettings) -> dict[str, Any]:
    """Validate a file into `out`: riq.jsonl, quarantine.jsonl, report.html and, last, report.json.

    Args:
        annotations: JSON list, JSON Lines, or either gzipped.
        out: folder to write into.
        video_root: where videos lie; by default beside the annotations.
        settings: how strictly.

    Returns:
        The report: `counts`, `reasons` (quarantined queries by primary reason) and `findings`.

    Raises:
        InputError: the file cannot be read, or the root holds no video; then nothing is written.
    """
    root = (video_root or annotations.parent).resolve()
    videos = VideoIndex(root, must_hold_videos=video_root is not None) if settings.probe_videos else None
    around = Surroundings(annotations.name, settings.tolerance, videos)
    ledger = _Ledger()
    items = _survey(annotations, around)
    with write_files(out, last=REPORT_JSON) as folder:
        with (
            (folder / RIQ_JSONL).open("w", encoding="utf-8") as accepted,
            (folder / QUARANTINE_JSONL).open("w", encoding="utf-8") as quarantine,
        ):
            for index, item in enumerate(progress(read_items(annotations), "checking", total=items, unit=" items")):
                about_item, outcomes = check_item(item, index, around)
                ledger.record(about_item, outcomes)
                for outcome in outcomes:
                    if outcome.sample is not None:
                        _write_line(accepted, msgspec.to_builtins(outcome.sample))
                        continue
                    found = [msgspec.to_builtins(finding) for finding in (*about_item, *outcome.findings)]
                    _write_line(quarantine, {**(outcome.quarantined or {}), "_findings": found})
        report = {
            "annotations": annotations.name,
            "counts": vars(ledger.counts),
            "reasons": dict(ledger.reasons.most_common()),
            "findings": [msgspec.to_builtins(finding) for finding in ledger.findings],
        }
        (folder / REPORT_HTML).write_text(render_report(report), encoding="utf-8")
        (folder / REPORT_JSON).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


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
    return "\n".join(lines)
