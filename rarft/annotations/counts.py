"""Counts of a validation: outcomes of queries and numbers of findings."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rarft.annotations.checks import Outcome
from rarft.annotations.findings import Finding
from rarft.annotations.stats import Statistics

_EXAMPLES = 5  # findings per code that the report shows
_TOTALS = ("items", "queries", "accepted", "repaired", "quarantined")


@dataclass
class ValidationCounts:
    """Counts of outcomes and findings, and the first findings of each code."""

    totals: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(_TOTALS, 0)))
    reasons: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Finding]] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=Statistics)

    def add_findings(self, findings: list[Finding]) -> None:
        """Count findings and keep the first of each code."""
        for finding in findings:
            self.codes[finding.code] += 1
            examples = self.examples.setdefault(finding.code, [])
            if len(examples) < _EXAMPLES:
                examples.append(finding)

    def add_query(self, item_findings: list[Finding], outcome: Outcome) -> None:
        """Count the outcome of one query."""
        self.totals["queries"] += 1
        findings = [*item_findings, *outcome.findings]
        if outcome.sample is None:
            self.totals["quarantined"] += 1
            # The primary reason is the first error of the lowest kind.
            errors = [finding for finding in findings if finding.severity == "error"]
            self.reasons[min(errors, key=lambda error: error.check.kind).check.name] += 1
            return
        self.statistics.add(outcome.sample)
        self.totals["repaired" if any(finding.is_repair for finding in findings) else "accepted"] += 1

    def merge(self, later: "ValidationCounts") -> None:
        """Add the counts of a later part of the file."""
        self.totals.update(later.totals)
        self.reasons.update(later.reasons)
        self.codes.update(later.codes)
        for code, findings in later.examples.items():
            examples = self.examples.setdefault(code, [])
            examples += findings[: _EXAMPLES - len(examples)]
        self.statistics.merge(later.statistics)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of report.json without the findings."""
        return {
            "counts": dict(self.totals),
            "reasons": dict(self.reasons.most_common()),
            "codes": dict(sorted(self.codes.items())),
            "statistics": self.statistics.as_dict(),
        }
