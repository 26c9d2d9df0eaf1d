"""The validation report: an HTML page of the findings, the repairs, and statistics of the usable queries."""

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from rarft.annotations.findings import CHECKS_BY_CODE, Finding
from rarft.reporting.charts import bars, histogram
from rarft.reporting.html import render_page

_MAX_QUERIES_PER_VIDEO = 10  # videos with more queries are counted together


def _headline(counts: Mapping[str, int]) -> dict[str, str]:
    queries = counts["queries"]
    shares = {
        name: f"{counts[name]:,} ({100 * counts[name] / queries:.1f} %)" if queries else f"{counts[name]:,}"
        for name in ("accepted", "repaired", "quarantined")
    }
    return {"queries": f"{queries:,}", **shares, "items": f"{counts['items']:,}"}


def _video_sizes(queries_per_video: dict[str, int]) -> dict[str, int]:
    """Return the number of videos by number of queries."""
    sizes = {size: count for size, count in queries_per_video.items() if int(size) <= _MAX_QUERIES_PER_VIDEO}
    if more := sum(count for size, count in queries_per_video.items() if int(size) > _MAX_QUERIES_PER_VIDEO):
        sizes[f"more than {_MAX_QUERIES_PER_VIDEO}"] = more
    return sizes


def _charts(statistics: dict[str, Any]) -> dict[str, Markup]:
    return {
        "Task type": bars(statistics["task_types"]),
        "Difficulty": bars(statistics["difficulties"]),
        "Mismatch category": bars(statistics["categories"]),
        "Queries per video, in the input": bars(_video_sizes(statistics["queries_per_video"]), "videos"),
        "Duration of the video": histogram(**statistics["duration"], unit=" s", title="duration"),
        "Length of the segment": histogram(**statistics["segment_length"], unit=" s", title="length"),
        "Center of the segment, relative to the video": histogram(
            **statistics["segment_center"], unit="", open_ended=False, title="position, 0 is the start and 1 the end"
        ),
    }


def render_report(report: dict[str, Any], examples: Mapping[str, Sequence[Finding]]) -> str:
    """Render the page of a report.json without its findings, given the first findings of each code."""
    counts = report["counts"]
    findings = []
    for code, count in report["codes"].items():
        rows = [(one.item, one.query, one.video, one.found, one.action) for one in examples[code]]
        findings.append((code, CHECKS_BY_CODE[code], count, rows))
    return render_page(
        "validation.html.j2",
        f"Validation of {report['annotations']}",
        "Every query of the input is accepted, repaired or quarantined. quarantine.jsonl contains the quarantined "
        "queries in the format of the input, with reasons: fix them in that file and validate it.",
        headline=_headline(counts),
        reasons=bars({name.replace("-", " "): count for name, count in report["reasons"].items()})
        if report["reasons"]
        else None,
        findings=findings,
        charts=_charts(report["statistics"]) if counts["accepted"] + counts["repaired"] else {},
        splits=[(name, *split.values()) for name, split in (report.get("splits") or {}).items()],
    )
