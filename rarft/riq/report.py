"""The validation report as a page."""

from collections import defaultdict
from typing import Any

from rarft.html import Html, cards, paragraph, section, table
from rarft.html import page as html_page
from rarft.riq.findings import CHECK_OF_CODE

_EXAMPLES = 5


def render_report(report: dict[str, Any]) -> str:
    """Totals, why queries were quarantined, and the findings by code with examples."""
    by_code: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for finding in report["findings"]:
        by_code[finding["code"]].append(finding)
    sections: list[Html] = []
    if report["reasons"]:
        rows = [(name, number) for name, number in report["reasons"].items()]
        sections.append(section("Quarantined queries by primary reason", table(["reason", "queries"], rows)))
    overview = [
        (
            code,
            CHECK_OF_CODE[code].name,
            CHECK_OF_CODE[code].severity,
            len(found),
            CHECK_OF_CODE[code].explanation,
        )
        for code, found in sorted(by_code.items())
    ]
    sections.append(section("Findings", table(["code", "check", "severity", "findings", "what it means"], overview)))
    for code, found in sorted(by_code.items()):
        rows_of_code = [
            (finding["item"], finding["query"], finding["video"], finding["found"], finding["action"])
            for finding in found[:_EXAMPLES]
        ]
        sections.append(
            section(
                f"{code} {CHECK_OF_CODE[code].name}: the first {len(rows_of_code)} of {len(found)}",
                table(["item", "query", "video", "found", "done"], rows_of_code),
            )
        )
    if not by_code:
        sections.append(paragraph("Nothing was found wrong."))
    counts = report["counts"]
    return html_page(
        f"Validation of {report['annotations']}",
        "Every query of the input is accepted, repaired or quarantined; quarantined ones stand in quarantine.jsonl.",
        cards(counts),
        *sections,
    )
