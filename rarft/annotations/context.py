"""What an item's checks know beside the item, and the list that they write their findings to."""

import json
import math
from dataclasses import dataclass, field
from typing import Any

from rarft.annotations.file_index import AnnotationIndex
from rarft.annotations.findings import CATALOGUE, REPAIRS, Finding
from rarft.annotations.videos import VideoIndex


@dataclass
class ValidationContext:
    """What an item's checks know beside the item.

    Attributes:
        file: name of the annotations file.
        tolerance: seconds by which a segment may run past the end and still be clamped.
        repairs: names of the repairs that may be made.
        videos: where videos are found; None where they are not looked at.
        survey: the whole file, as the first pass saw it.
        leaked: hashes of the base names of the videos of another file that must share none.
        seen: hashes of the ids of the queries that were kept so far.
    """

    file: str
    tolerance: float
    videos: VideoIndex | None
    survey: AnnotationIndex
    repairs: frozenset[str] = frozenset(REPAIRS)
    leaked: frozenset[int] = frozenset()
    seen: set[int] = field(default_factory=set)


class FindingList(list[Finding]):
    """The findings about one item, or about one query of it."""

    def __init__(self, around: ValidationContext, item: int, video: str | None, query: int | None = None) -> None:
        super().__init__()
        self._repairs = around.repairs
        self._where = (item, video, query)

    def add(self, name: str, found: str, action: str | None = None) -> None:
        """Note a finding; an error quarantines."""
        check = CATALOGUE[name]
        default = "quarantined" if check.severity == "error" else "noted"
        item, video, query = self._where
        self.append(Finding(check.code, check.severity, item, video, query, found, action or default))

    def mend(self, name: str, found: str, repaired: str) -> bool:
        """Note a finding that its check's repair mends; where the repair is turned off, it quarantines.

        Returns:
            Whether the repair is to be made.
        """
        check = CATALOGUE[name]
        item, video, query = self._where
        if check.repair in self._repairs:
            self.append(Finding(check.code, check.severity, item, video, query, found, f"repaired: {repaired}"))
            return True
        action = f"quarantined: the repair {check.repair} is turned off"
        self.append(Finding(check.code, "error", item, video, query, found, action))
        return False


def has_error(findings: list[Finding]) -> bool:
    """Whether one of them quarantines the query."""
    return any(finding.severity == "error" for finding in findings)


def number(value: Any) -> float | None:
    """A finite number, also where it is written as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def shown(value: Any) -> str:
    """A value as a finding quotes it: short, printable, on one line."""
    text = " ".join(json.dumps(value, default=str).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


def extract_tag(text: str, tag: str) -> str | None:
    """What stands between the first two marks of a tag; None without them."""
    start = text.find(f"<{tag}>")
    end = text.find(f"</{tag}>", start) if start >= 0 else -1
    return text[start + len(tag) + 2 : end] if end >= 0 else None
