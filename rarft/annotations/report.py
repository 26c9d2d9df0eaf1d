"""The validation report as a page: what was found, what was done, and what the usable queries look like."""

from typing import Any

from rarft.annotations.findings import CHECK_OF_CODE, Finding
from rarft.reporting.html import Html, bars, cards, cell, columns, histogram, paragraph, section, table
from rarft.reporting.html import page as html_page

_MOST_VIDEO_SIZES = 10


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({100 * part / whole:.1f} %)" if whole else f"{part:,}"


def _headline(report: dict[str, Any]) -> Html:
    counts = report["counts"]
    queries = counts["queries"]
    shares = {name: _share(counts[name], queries) for name in ("accepted", "repaired", "quarantined")}
    return cards({"queries": f"{queries:,}", **shares, "items": f"{counts['items']:,}"})


def _findings_by_code(report: dict[str, Any], examples: dict[str, list[Finding]]) -> list[Html]:
    parts: list[Html] = []
    for code, number in report["codes"].items():
        check = CHECK_OF_CODE[code]
        rows = [
            (finding.item, finding.query, finding.video, finding.found, finding.action) for finding in examples[code]
        ]
        severity = Html(f"<span class={check.severity}>{check.severity}</span>")
        title = f"<b>{code}</b> {cell(check.name)} · {severity} · {number:,}<br>{cell(check.explanation)}"
        shown = table(["item", "query", "video", "found", "done"], rows)
        parts.append(Html(f"<details{' open' if not parts else ''}><summary>{title}</summary>{shown}</details>"))
    return parts


def _video_sizes(queries_per_video: dict[str, int]) -> dict[str, int]:
    """Number of videos by number of queries; what goes past ten together."""
    sizes = {size: count for size, count in queries_per_video.items() if int(size) <= _MOST_VIDEO_SIZES}
    if more := sum(count for size, count in queries_per_video.items() if int(size) > _MOST_VIDEO_SIZES):
        sizes[f"more than {_MOST_VIDEO_SIZES}"] = more
    return sizes


def _plots(statistics: dict[str, Any]) -> Html:
    return columns(
        {
            "Task type": bars(statistics["task_types"]),
            "Difficulty": bars(statistics["difficulties"]),
            "Mismatch category": bars(statistics["categories"]),
            "Queries of a video, in the input": bars(_video_sizes(statistics["queries_per_video"])),
            "Duration of the video": histogram(**statistics["duration"], unit=" s"),
            "Length of the segment": histogram(**statistics["segment_length"], unit=" s"),
            "Centre of the segment, from the video's start to its end": histogram(
                **statistics["segment_centre"], unit="", open_ended=False
            ),
        }
    )


def render_report(report: dict[str, Any], examples: dict[str, list[Finding]]) -> str:
    """The page.

    Args:
        report: what report.json holds, without the findings.
        examples: the first findings of each code.
    """
    counts = report["counts"]
    parts: list[Html] = [_headline(report)]
    if report["reasons"]:
        names = {name.replace("-", " "): number for name, number in report["reasons"].items()}
        parts.append(section("Why queries were quarantined", bars(names)))
    findings = _findings_by_code(report, examples) or [paragraph("Nothing was found wrong.")]
    parts.append(section("Findings by code, with examples", *findings))
    if counts["accepted"] + counts["repaired"]:
        parts.append(section("The queries that can be used", _plots(report["statistics"])))
    if splits := report.get("splits"):
        header = ["part", "videos", "queries", "answerable", "refusable"]
        parts.append(
            section("Split by video", table(header, [(name, *part.values()) for name, part in splits.items()]))
        )
    return html_page(
        f"Validation of {report['annotations']}",
        "Every query of the input is accepted, repaired or quarantined. What was quarantined stands in "
        "quarantine.jsonl in the input's own form, with its reasons: mend it there and validate that file.",
        *parts,
    )
