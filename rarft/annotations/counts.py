"""The counts of a validation: what became of the queries, and what was found."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rarft.annotations.checks import Outcome
from rarft.annotations.findings import Finding
from rarft.annotations.stats import Statistics

EXAMPLES = 5  # findings of each code that are kept to be shown


def primary_reason(findings: list[Finding]) -> Finding:
    """Of the errors that quarantine a query, the one that counts: the lowest kind, the first found of it."""
    return min((f for f in findings if f.severity == "error"), key=lambda finding: finding.check.kind)


@dataclass
class ValidationCounts:
    """What became of the queries, and what was found; findings themselves are on disk."""

    items: int = 0
    queries: int = 0
    accepted: int = 0
    repaired: int = 0
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Finding]] = field(default_factory=dict)
    statistics: Statistics = field(default_factory=Statistics)

    def note(self, findings: list[Finding]) -> None:
        """Count findings, and keep the first of each code."""
        for finding in findings:
            self.codes[finding.code] += 1
            kept = self.examples.setdefault(finding.code, [])
            if len(kept) < EXAMPLES:
                kept.append(finding)

    def record(self, about_item: list[Finding], outcome: Outcome) -> None:
        """Count one query."""
        self.queries += 1
        concerned = [*about_item, *outcome.findings]
        if outcome.sample is None:
            self.quarantined += 1
            self.reasons[primary_reason(concerned).check.name] += 1
            return
        self.statistics.add(outcome.sample)
        if any(finding.is_repair for finding in concerned):
            self.repaired += 1
        else:
            self.accepted += 1

    def merge(self, later: "ValidationCounts") -> None:
        """Add the counts of what comes later in the file."""
        for name in ("items", "queries", "accepted", "repaired", "quarantined"):
            setattr(self, name, getattr(self, name) + getattr(later, name))
        self.reasons.update(later.reasons)
        self.codes.update(later.codes)
        for code, findings in later.examples.items():
            kept = self.examples.setdefault(code, [])
            kept += findings[: EXAMPLES - len(kept)]
        self.statistics.merge(later.statistics)

    def as_dict(self) -> dict[str, Any]:
        """The report without the findings."""
        names = ("items", "queries", "accepted", "repaired", "quarantined")
        return {
            "counts": {name: getattr(self, name) for name in names},
            "reasons": dict(self.reasons.most_common()),
            "codes": dict(sorted(self.codes.items())),
            "statistics": self.statistics.as_dict(),
        }
