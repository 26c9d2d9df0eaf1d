"""Context of an item's checks: settings, videos and the rest of the file, and the list of findings."""

from dataclasses import dataclass, field
from functools import cached_property

from rarft.annotations.annotation_index import AnnotationIndex
from rarft.annotations.findings import CATALOG, REPAIRS, Finding
from rarft.annotations.videos import VideoInspector


@dataclass
class ValidationContext:
    """Everything that the checks of an item need in addition to the item.

    Attributes:
        file: Name of the annotations file.
        tolerance: Seconds by which a segment may end after the video and still be clamped.
        videos: Index of the videos; None if videos are not opened.
        index: Index of the file, from the first pass.
        repairs: Names of the repairs that are allowed.
        excluded_videos: Hashes of the base names of videos that must not occur.
        crop_times: Whether times of items with a crop count from its start: one of `CROP_TIMES`.
        seen: Hashes of the ids of the queries that were kept so far.
    """

    file: str
    tolerance: float
    videos: VideoInspector | None
    index: AnnotationIndex
    repairs: frozenset[str] = frozenset(REPAIRS)
    excluded_videos: frozenset[int] = frozenset()
    crop_times: str = "auto"
    seen: set[int] = field(default_factory=set)

    @cached_property
    def has_relative_times(self) -> bool:
        """Return whether the times of items with a crop count from its start."""
        return self.index.crops.is_relative(self.crop_times)


class FindingList(list[Finding]):
    """Findings about one item, or about one of its queries."""

    def __init__(self, context: ValidationContext, item: int, video: str | None, query: int | None = None) -> None:
        """
        Args:
            context: Context of the check.
            item: Index of the item in the file.
            video: Video as the item names it.
            query: Index of the query in the item; None for the whole item.
        """
        super().__init__()
        self._repairs = context.repairs
        self._source = (item, video, query)

    def add(self, name: str, found: str, action: str | None = None) -> None:
        """Add a finding. An error quarantines the query."""
        check = CATALOG[name]
        default = "quarantined" if check.severity == "error" else "noted"
        self.append(Finding(check.code, check.severity, *self._source, found, action or default))

    def repair(self, name: str, found: str, result: str) -> bool:
        """Add a finding that a repair fixes. It quarantines the query if the repair is turned off.

        Args:
            name: Name of the check.
            found: The value that was found.
            result: The value after the repair.

        Returns:
            Whether the repair is allowed.
        """
        check = CATALOG[name]
        if check.repair in self._repairs:
            self.append(Finding(check.code, check.severity, *self._source, found, f"repaired: {result}"))
            return True
        action = f"quarantined: repair {check.repair} is turned off"
        self.append(Finding(check.code, "error", *self._source, found, action))
        return False


def has_error(findings: list[Finding]) -> bool:
    """Check whether a finding quarantines the query."""
    return any(finding.severity == "error" for finding in findings)
