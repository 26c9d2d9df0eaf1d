"""The catalogue of what can be wrong with annotations, and one finding of it."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import msgspec


class Kind(IntEnum):
    """What a finding is about. Of several that quarantine a query, the lowest kind is its primary reason."""

    UNREADABLE = 0
    SCHEMA = 1
    VIDEO = 2
    SEGMENT = 3
    TEXT = 4
    DUPLICATE = 5
    LABEL = 6


Severity = Literal["error", "warning", "info"]


@dataclass(frozen=True)
class Check:
    """One thing that is looked at. An error quarantines the query; a warning or an info does not."""

    code: str
    name: str
    severity: Severity
    kind: Kind
    explanation: str
    repairs: bool = False


_CHECKS = (
    Check("RIQ001", "broken-line", "error", Kind.UNREADABLE, "A line of a JSON Lines file is no JSON."),
    Check("RIQ002", "not-an-item", "error", Kind.UNREADABLE, "An item is no object, or has no readable GRPO list."),
    Check("RIQ011", "wrong-type", "error", Kind.SCHEMA, "A field is missing or of a type that cannot be read."),
    Check("RIQ101", "segment-past-end", "error", Kind.SEGMENT, "The segment runs past the video's end by more than the tolerance."),
    Check("RIQ102", "segment-clamped", "warning", Kind.SEGMENT, "The segment ran past the video's end within the tolerance and was clamped.", repairs=True),
    Check("RIQ103", "segment-reversed", "error", Kind.SEGMENT, "The segment's start is not before its end."),
    Check("RIQ104", "segment-missing", "error", Kind.SEGMENT, "An answerable query has no segment."),
    Check("RIQ105", "segment-not-numbers", "error", Kind.SEGMENT, "The segment is not two finite numbers."),
    Check("RIQ106", "segment-negative", "error", Kind.SEGMENT, "The segment starts before the video does."),
    Check("RIQ107", "segment-of-another", "error", Kind.SEGMENT, "An item's one segment belongs to another of its answerable queries."),
    Check("RIQ110", "duration-unknown", "warning", Kind.SEGMENT, "No duration is known: the query can be evaluated and not trained on."),
    Check("RIQ111", "duration-invalid", "warning", Kind.SEGMENT, "The duration is no positive number and was left out."),
    Check("RIQ112", "duration-filled", "warning", Kind.SEGMENT, "The duration was missing and was read from the video.", repairs=True),
    Check("RIQ113", "crop-invalid", "warning", Kind.SEGMENT, "video_start and video_end are no part of the video and were left out."),
    Check("RIQ201", "video-not-found", "error", Kind.VIDEO, "The video file is not there."),
    Check("RIQ202", "video-unreadable", "error", Kind.VIDEO, "The video file cannot be opened, or holds no frame."),
    Check("RIQ203", "video-length-differs", "warning", Kind.VIDEO, "The video's length is not the annotated duration; the file's is used.", repairs=True),
    Check("RIQ204", "video-rerooted", "info", Kind.VIDEO, "The video was found by its base name."),
    Check("RIQ301", "query-empty", "error", Kind.TEXT, "The query is blank."),
    Check("RIQ302", "refusal-empty", "error", Kind.TEXT, "A refusable query has no ground-truth answer."),
    Check("RIQ303", "answer-filled", "warning", Kind.TEXT, "The answer of an answerable query was blank and was filled from its segment.", repairs=True),
    Check("RIQ304", "answer-untagged", "warning", Kind.TEXT, "The answer had no <answer> tags and was taken as it is.", repairs=True),
    Check("RIQ305", "correct-tag", "warning", Kind.TEXT, "<correct> stood where <correction> is meant.", repairs=True),
    Check("RIQ306", "answer-rounded", "info", Kind.TEXT, "The answer's seconds differ from the segment; the segment counts."),
    Check("RIQ401", "category-unknown", "warning", Kind.LABEL, "A mismatch category is not one of the published ones."),
    Check("RIQ402", "difficulty-unknown", "warning", Kind.LABEL, "A difficulty is none of original, easy, medium, hard, and was left out."),
    Check("RIQ501", "duplicate", "error", Kind.DUPLICATE, "The same query of the same video, with the same segment, stands earlier."),
    Check("RIQ502", "contradiction", "error", Kind.DUPLICATE, "The same query of the same video is marked both answerable and refusable."),
)  # fmt: skip

CATALOGUE = {check.name: check for check in _CHECKS}
CHECK_OF_CODE = {check.code: check for check in _CHECKS}


class Finding(msgspec.Struct, frozen=True):
    """One thing that was found: where, what, and what was done about it.

    Attributes:
        code: of the check, such as RIQ101.
        severity: error, warning or info.
        item: index of the item in the file.
        video: as the item names it.
        query: index of the query in the item; None where it concerns the whole item.
        found: what stands there.
        action: what was done: quarantined, a repair, or noted.
    """

    code: str
    severity: Severity
    item: int
    video: str | None
    query: int | None
    found: str
    action: str

    @property
    def check(self) -> Check:
        """The check that found it."""
        return CHECK_OF_CODE[self.code]
