"""Counts of a validation: outcomes of queries and numbers of findings."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rarft.annotations.checks import Outcome
from rarft.annotations.findings import Finding
from rarft.annotations.stats import Statistics

_EXAMPLES = 5  # findings per code that the report shows
_TOTALS = ("items", "queries", "accepted", "repaired", "quarantined")


def primary_reason(findings: list[Finding]) -> Finding:
    """Return the first error of the lowest kind among those that quarantine a query."""
    return min((f for f in findings if f.severity == "error"), key=lambda finding: finding.check.kind)


@dataclass
class ValidationCounts:
    """Counts of outcomes and findings, and the first findings of each code."""

    items: int = 0
    queries: int = 0
    accepted: int = 0
    repaired: int = 0
    quarantined: int = 0
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
        self.queries += 1
        findings = [*item_findings, *outcome.findings]
        if outcome.sample is None:
            self.quarantined += 1
            self.reasons[primary_reason(findings).check.name] += 1
            return
        self.statistics.add(outcome.sample)
        if any(finding.is_repair for finding in findings):
            self.repaired += 1
        else:
            self.accepted += 1

    def merge(self, later: "ValidationCounts") -> None:
        """Add the counts of a later part of the file."""
        for name in _TOTALS:
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.reasons.update(later.reasons)
        self.codes.update(later.codes)
        for code, findings in later.examples.items():
            examples = self.examples.setdefault(code, [])
            examples += findings[: _EXAMPLES - len(examples)]
        self.statistics.merge(later.statistics)

    def as_dict(self) -> dict[str, Any]:
        """Return the content of report.json without the findings."""
        return {
            "counts": {name: getattr(self, name) for name in _TOTALS},
            "reasons": dict(self.reasons.most_common()),
            "codes": dict(sorted(self.codes.items())),
            "statistics": self.statistics.as_dict(),
        }
