"""The catalogue of what can be wrong with annotations, and one finding of it.

`python -m rarft.annotations.findings` prints the catalogue as the page `docs/checks.md`.
"""

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
    LEAK = 6
    LABEL = 7


Severity = Literal["error", "warning", "info"]

# The repairs by name. Turned off, what they would have mended quarantines the query, unless the check says otherwise.
REPAIRS = {
    "clamp": "clamp a segment that runs past the video's end by no more than the tolerance",
    "correct-tag": "read <correct> as <correction>",
    "wrap-answer": "take an answer without <answer> tags as it is",
    "fill-answer": "fill the blank answer of an answerable query from its segment",
    "reroot-video": "find a video by its base name under the video root",
    "fill-duration": "take a missing or differing duration from the video",
    "difficulty-names": "read other published names of the difficulties",
}


@dataclass(frozen=True)
class Check:
    """One thing that is looked at.

    Attributes:
        code: stable, such as RIQ101.
        name: for people.
        severity: an error quarantines the query; a warning or an info does not.
        kind: what it is about.
        explanation: one line.
        example: what stands in an item that it finds.
        repair: the repair that mends it, if one does.
    """

    code: str
    name: str
    severity: Severity
    kind: Kind
    explanation: str
    example: str
    repair: str | None = None


_CHECKS = (
    Check("RIQ001", "broken-line", "error", Kind.UNREADABLE, "A line of a JSON Lines file is no JSON.", '{"video": "a.mp4", "GR'),
    Check("RIQ002", "not-an-item", "error", Kind.UNREADABLE, "An item is no object, or has no readable GRPO list.", '{"video": "a.mp4"}'),
    Check("RIQ011", "wrong-type", "error", Kind.SCHEMA, "A field is missing or of a type that cannot be read.", '"q": 7'),
    Check("RIQ012", "not-unicode", "error", Kind.SCHEMA, "The item holds characters that are no Unicode text: another encoding, or half a surrogate pair.", '"q": "caf\\xe9" in Latin-1; convert the file with iconv'),
    Check("RIQ013", "number-not-json", "warning", Kind.SCHEMA, "An extra field holds NaN or an infinity, which JSON has not, and was written as null.", '"score": NaN'),
    Check("RIQ101", "segment-past-end", "error", Kind.SEGMENT, "The segment runs past the video's end by more than the tolerance.", '"timestamp": [20.0, 36.5], "duration": 30.0'),
    Check("RIQ102", "segment-clamped", "warning", Kind.SEGMENT, "The segment ran past the video's end within the tolerance and was clamped.", '"timestamp": [20.0, 30.4], "duration": 30.0', repair="clamp"),
    Check("RIQ103", "segment-reversed", "error", Kind.SEGMENT, "The segment's start is not before its end.", '"timestamp": [14.4, 9.3]'),
    Check("RIQ104", "segment-missing", "error", Kind.SEGMENT, "An answerable query has no segment.", '"timestamp": [] beside "r": true'),
    Check("RIQ105", "segment-not-numbers", "error", Kind.SEGMENT, "The segment is not two finite numbers.", '"timestamp": [NaN, 5.0]'),
    Check("RIQ106", "segment-negative", "error", Kind.SEGMENT, "The segment starts before the video does.", '"timestamp": [-1.0, 5.0]'),
    Check("RIQ107", "segment-of-another", "error", Kind.SEGMENT, "An item's one segment belongs to the answerable query that equals query_text, and this is not that one.", 'two queries with "r": true, one "timestamp"'),
    Check("RIQ110", "duration-unknown", "warning", Kind.SEGMENT, "No duration is known: the query can be evaluated and not trained on.", 'no "duration", and the video was not looked at'),
    Check("RIQ111", "duration-invalid", "warning", Kind.SEGMENT, "The duration is no positive number and was left out.", '"duration": -3'),
    Check("RIQ112", "duration-filled", "warning", Kind.SEGMENT, "The duration was missing and was read from the video.", 'no "duration", and the video opens', repair="fill-duration"),
    Check("RIQ113", "crop-invalid", "warning", Kind.SEGMENT, "video_start and video_end are no part of the video and were left out.", '"video_start": 20, "video_end": 5'),
    Check("RIQ114", "segment-outside-crop", "warning", Kind.SEGMENT, "The segment is not within video_start and video_end: its frames are not all shown.", '"timestamp": [1, 9], "video_start": 5'),
    Check("RIQ201", "video-not-found", "error", Kind.VIDEO, "The video file is not there.", '"video": "/somebody/else/a.mp4"'),
    Check("RIQ202", "video-unreadable", "error", Kind.VIDEO, "The video file cannot be opened, or holds no frame.", "a cut-off download"),
    Check("RIQ203", "video-length-differs", "warning", Kind.VIDEO, "The video's length is not the annotated duration, by more than the tolerance; the file's is used.", '"duration": 30.0 for a file of 24.2 s', repair="fill-duration"),
    Check("RIQ204", "video-rerooted", "info", Kind.VIDEO, "The video was found by its base name.", '"video": "/somebody/else/a.mp4", and a.mp4 lies under the video root'),
    Check("RIQ205", "video-too-short", "error", Kind.VIDEO, "The video, or its crop, holds fewer than the two frames that a model needs.", '"video_start": 5.0, "video_end": 5.1'),
    Check("RIQ206", "video-ambiguous", "error", Kind.VIDEO, "Several videos under the root have the base name, and none fits the path better.", '"video": "/somebody/else/1.mp4" beside a/1.mp4 and b/1.mp4'),
    Check("RIQ301", "query-empty", "error", Kind.TEXT, "The query is blank.", '"q": " "'),
    Check("RIQ302", "refusal-empty", "error", Kind.TEXT, "A refusable query has no ground-truth answer.", '"a": "<answer></answer>" beside "r": false'),
    Check("RIQ303", "answer-filled", "warning", Kind.TEXT, "The answer of an answerable query was blank and was filled from its segment.", '"a": "" beside "r": true', repair="fill-answer"),
    Check("RIQ304", "answer-untagged", "warning", Kind.TEXT, "The answer had no <answer> tags and was taken as it is.", '"a": "9.3 to 14.4"', repair="wrap-answer"),
    Check("RIQ305", "correct-tag", "warning", Kind.TEXT, "<correct> stood where <correction> is meant.", '"a": "<answer>..</answer><correct>..</correct>"', repair="correct-tag"),
    Check("RIQ306", "answer-rounded", "info", Kind.TEXT, "The answer's seconds differ from the segment by no more than the tolerance; the segment counts.", '"a": "<answer>9.3 to 14.4</answer>", "timestamp": [9.31, 14.4]'),
    Check("RIQ307", "refusal-with-timestamp", "warning", Kind.TEXT, "The ground-truth refusal holds a timestamp, which reads as an answer.", '"a": "<answer>not from 3 to 5</answer>" beside "r": false'),
    Check("RIQ308", "no-references", "info", Kind.TEXT, "A refusable query's video has no answerable query: its correction can earn no bonus.", 'only queries with "r": false'),
    Check("RIQ309", "special-token", "error", Kind.TEXT, "The query holds a special token of the model, which would not be read as text.", '"q": "a dog <|video_pad|> runs"'),
    Check("RIQ310", "answer-differs", "warning", Kind.TEXT, "The answer of an answerable query names no segment, or another than its own; the segment counts.", '"a": "<answer>7 to 9</answer>", "timestamp": [1, 4]'),
    Check("RIQ401", "category-unknown", "warning", Kind.LABEL, "A mismatch category is not one of the published ones.", '"c": ["Sound/Loudness"]'),
    Check("RIQ402", "difficulty-unknown", "warning", Kind.LABEL, "A difficulty is none of original, easy, medium, hard; it was left out and kept as an extra field.", '"difficulty": "brutal"'),
    Check("RIQ403", "difficulty-renamed", "info", Kind.LABEL, "Another published name of a difficulty was read as easy, medium or hard.", '"hardness_level": "strong"', repair="difficulty-names"),
    Check("RIQ404", "one-kind-only", "info", Kind.LABEL, "The item has no refusable query, or no answerable one: nothing to contrast.", 'only queries with "r": true'),
    Check("RIQ501", "duplicate", "error", Kind.DUPLICATE, "The same query of the same video, with the same segment, stands earlier.", "one item twice"),
    Check("RIQ502", "contradiction", "error", Kind.DUPLICATE, "The same query of the same video is marked both answerable and refusable.", '"a dog runs" with "r": true and with "r": false'),
    Check("RIQ503", "refuses-a-true-query", "error", Kind.DUPLICATE, "But for case and punctuation, a refusable query is an answerable query of its video.", '"A dog runs." refusable, "a dog runs" answerable'),
    Check("RIQ601", "video-leaks", "error", Kind.LEAK, "The video stands in the annotations given by --against too.", "train.json and eval.json both hold a.mp4"),
)  # fmt: skip

CATALOGUE = {check.name: check for check in _CHECKS}
CHECK_OF_CODE = {check.code: check for check in _CHECKS}


class Finding(msgspec.Struct, frozen=True):
    """One thing that was found: where, what, and what was done about it.

    Attributes:
        code: of the check, such as RIQ101.
        severity: error, warning or info; an error where a repair would have mended it and is turned off.
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

    @property
    def is_repair(self) -> bool:
        """Whether what it found was mended, so that the query is not what it was."""
        return self.action.startswith("repaired")


def catalogue_page() -> str:
    """The catalogue as Markdown."""
    lines = [
        "# What validation looks for",
        "",
        "An **error** quarantines the query, a **warning** or an **info** does not. A query with several errors is",
        "counted under the first of: unreadable item, schema, video, segment, text, duplicate, leak. With",
        "`--no-repair NAME` a repair is turned off; what it would have mended is then an error, except that",
        "`fill-duration` leaves the annotation as it is and `difficulty-names` leaves the difficulty out.",
        "",
        "This page is printed by `python -m rarft.annotations.findings`.",
        "",
        "| code | check | severity | what it means | example | repair |",
        "|---|---|---|---|---|---|",
    ]
    for check in _CHECKS:
        example = check.example.replace("|", "\\|")
        repair = f"`{check.repair}`" if check.repair else ""
        lines.append(
            f"| {check.code} | {check.name} | {check.severity} | {check.explanation} | `{example}` | {repair} |"
        )
    lines += ["", "| repair | does |", "|---|---|"]
    lines += [f"| `{name}` | {does} |" for name, does in REPAIRS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(catalogue_page(), end="")
