"""Catalog of the validation checks, and findings.

`python -m rarft.annotations.findings` prints the catalog as the page `docs/checks.md`.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

import msgspec


class Kind(IntEnum):
    """Subject of a check. The error of the lowest kind is the primary reason for a quarantine."""

    UNREADABLE = 0
    SCHEMA = 1
    VIDEO = 2
    SEGMENT = 3
    TEXT = 4
    DUPLICATE = 5
    LEAK = 6
    LABEL = 7


Severity = Literal["error", "warning", "info"]

# Repairs by name. If one is turned off, its check quarantines the query, unless the check's code does otherwise.
REPAIRS = {
    "clamp-segment": "Clamp a segment that ends after the video, within the tolerance.",
    "rename-correct-tag": "Read `<correct>` as `<correction>`.",
    "accept-untagged-answer": "Use an answer without `<answer>` tags as a whole.",
    "fill-answer": "Fill the blank answer of an answerable query from its segment.",
    "find-video-by-name": "Find a video by its base name under the video root.",
    "convert-crop-times": "Convert times that count from the start of a crop to times of the video.",
    "fill-duration": "Take a missing or different duration from the video.",
    "map-difficulty": "Map other published names of difficulties.",
    "use-own-segment": "Take the segment of a second answerable query from its answer, if that differs from the timestamp.",
}


@dataclass(frozen=True)
class Check:
    """One validation check."""

    code: str  # stable, such as RIQ101
    name: str
    severity: Severity  # an error quarantines the query
    kind: Kind
    explanation: str
    example: str  # part of an item that the check finds
    repair: str | None = None  # name of the repair that fixes it


_CHECKS = (
    Check("RIQ001", "malformed-line", "error", Kind.UNREADABLE, "A line of a JSON Lines file is not valid JSON.", '{"video": "a.mp4", "GR'),
    Check("RIQ002", "invalid-item", "error", Kind.UNREADABLE, "An item is not an object, or has no readable GRPO list.", '{"video": "a.mp4"}'),
    Check("RIQ011", "wrong-type", "error", Kind.SCHEMA, "A field is missing or has the wrong type.", '"q": 7'),
    Check("RIQ012", "invalid-unicode", "error", Kind.SCHEMA, "The item contains text that is not valid Unicode: another encoding, or a lone surrogate.", '"q": "caf\\xe9" in Latin-1; convert the file with iconv'),
    Check("RIQ013", "non-finite-number", "warning", Kind.SCHEMA, "An extra field contains NaN or Infinity, which is not valid JSON, and was written as null.", '"score": NaN'),
    Check("RIQ101", "segment-past-end", "error", Kind.SEGMENT, "The segment ends after the video, by more than the tolerance.", '"timestamp": [20.0, 36.5], "duration": 30.0'),
    Check("RIQ102", "segment-clamped", "warning", Kind.SEGMENT, "The segment ended after the video, within the tolerance, and was clamped.", '"timestamp": [20.0, 30.4], "duration": 30.0', repair="clamp-segment"),
    Check("RIQ103", "segment-reversed", "error", Kind.SEGMENT, "The segment's start is not before its end.", '"timestamp": [14.4, 9.3]'),
    Check("RIQ104", "segment-missing", "error", Kind.SEGMENT, "An answerable query has no segment.", '"timestamp": [], "r": true'),
    Check("RIQ105", "segment-not-numeric", "error", Kind.SEGMENT, "The timestamp is not a pair of times, or a list of such pairs.", '"timestamp": [NaN, 5.0]'),
    Check("RIQ106", "segment-negative", "error", Kind.SEGMENT, "The segment starts before the video.", '"timestamp": [-1.0, 5.0]'),
    Check("RIQ107", "segment-of-other-query", "error", Kind.SEGMENT, "The item's only segment belongs to another answerable query, the one that equals query_text, and this query's answer states no other times.", 'two queries with "r": true, one "timestamp"'),
    Check("RIQ110", "duration-unknown", "warning", Kind.SEGMENT, "The duration is unknown: the query can be used for evaluation, but not for training.", 'no "duration", and videos are not opened'),
    Check("RIQ111", "duration-invalid", "warning", Kind.SEGMENT, "The duration is not a positive number and was dropped.", '"duration": -3'),
    Check("RIQ112", "duration-filled", "warning", Kind.SEGMENT, "The duration was missing and was read from the video.", 'no "duration", and the video is readable', repair="fill-duration"),
    Check("RIQ113", "crop-invalid", "warning", Kind.SEGMENT, "video_start and video_end are not a part of the video and were dropped.", '"video_start": 20, "video_end": 5'),
    Check("RIQ114", "segment-outside-crop", "warning", Kind.SEGMENT, "The segment is not within video_start and video_end: some of its frames are not shown.", '"timestamp": [1, 9], "video_start": 5'),
    Check("RIQ115", "crop-times-relative", "warning", Kind.SEGMENT, "Times counted from the start of the crop, and the duration was the length of the crop, as in the file's other items with a crop; they were converted to times of the video.", '"timestamp": [2, 8], "video_start": 40, "video_end": 70, "duration": 30', repair="convert-crop-times"),
    Check("RIQ116", "crop-is-file", "warning", Kind.SEGMENT, "The video's file contains only the crop, from which times count; the crop was dropped.", '"video_start": 40, "video_end": 70, with a file of 30 s', repair="convert-crop-times"),
    Check("RIQ117", "crop-times-unclear", "error", Kind.SEGMENT, "The file's other items with a crop have times that count from its start, but the duration of this one is not the length of its crop.", '"video_start": 40, "video_end": 70, "duration": 300'),
    Check("RIQ118", "segment-from-answer", "warning", Kind.SEGMENT, "The item's only timestamp belongs to another answerable query, and the segment was taken from the query's own answer.", 'two queries with "r": true, whose answers state different times', repair="use-own-segment"),
    Check("RIQ201", "video-not-found", "error", Kind.VIDEO, "The video file does not exist.", '"video": "/somebody/else/a.mp4"'),
    Check("RIQ202", "video-unreadable", "error", Kind.VIDEO, "The video file cannot be opened, or contains no frames.", "a web page that was saved as a.mp4"),
    Check("RIQ203", "duration-mismatch", "warning", Kind.VIDEO, "The annotated duration differs from the video's by more than the tolerance; the video's was used.", '"duration": 30.0 for a file of 24.2 s', repair="fill-duration"),
    Check("RIQ204", "video-found-by-name", "info", Kind.VIDEO, "The video was found by its base name under the video root, or by its name without percent-encoding or with the suffix of a video.", '"video": "/somebody/else/a%20b", and a b.mp4 is under the video root'),
    Check("RIQ205", "video-too-short", "error", Kind.VIDEO, "The video, or its crop, has fewer than the two frames that a model needs.", '"video_start": 5.0, "video_end": 5.1'),
    Check("RIQ206", "video-ambiguous", "error", Kind.VIDEO, "Several videos under the video root have this base name, and none matches the path better.", '"video": "/somebody/else/1.mp4", with a/1.mp4 and b/1.mp4'),
    Check("RIQ207", "video-undecodable", "error", Kind.VIDEO, "A frame that training samples at --video-fps cannot be decoded.", "a file with a hole: 295 packets, of which 85 can be decoded"),
    Check("RIQ208", "video-truncated", "error", Kind.VIDEO, "More than the tolerance is missing at the end of the video, as its header declares it, or at its start, before the first key frame.", "a truncated download; a stream that was cut between key frames"),
    Check("RIQ209", "video-damaged", "warning", Kind.VIDEO, "Frames are decoded with errors, packets are incomplete, or less than the tolerance is missing at the start or the end.", "a download that lacks its last kilobyte"),
    Check("RIQ210", "video-audio-only", "error", Kind.VIDEO, "The file has no video stream.", "a sound track in an .mp4 file"),
    Check("RIQ211", "video-frame-size", "error", Kind.VIDEO, "The frames have an aspect ratio above 200, or a side below 28 pixels after resizing to the default pixel budget.", "a strip of 4096x16 pixels"),
    Check("RIQ212", "video-small", "warning", Kind.VIDEO, "A side of the frames is below 28 pixels, one patch of the model; they are enlarged.", "frames of 32x24 pixels"),
    Check("RIQ213", "video-variable-rate", "info", Kind.VIDEO, "The frame rate varies. Frames are sampled by their presentation times.", "a screen recording"),
    Check("RIQ214", "video-rotated", "info", Kind.VIDEO, "The file stores its frames rotated. They are turned upright.", "a video that a phone recorded upright"),
    Check("RIQ215", "video-hdr", "warning", Kind.VIDEO, "The video has a high dynamic range. Its frames are not tone mapped, and their colors look pale.", "a recording in HLG"),
    Check("RIQ301", "query-empty", "error", Kind.TEXT, "The query is blank.", '"q": " "'),
    Check("RIQ302", "refusal-empty", "warning", Kind.TEXT, "A refusable query has no ground-truth answer, so the contrastive reward leaves it out.", '"a": "<answer></answer>", "r": false'),
    Check("RIQ303", "answer-filled", "warning", Kind.TEXT, "The answer of an answerable query was blank and was filled from its segment.", '"a": "", "r": true', repair="fill-answer"),
    Check("RIQ304", "answer-untagged", "warning", Kind.TEXT, "The answer had no <answer> tags and was used as a whole.", '"a": "9.3 to 14.4"', repair="accept-untagged-answer"),
    Check("RIQ305", "correct-tag", "warning", Kind.TEXT, "A <correct> tag was read as <correction>.", '"a": "<answer>..</answer><correct>..</correct>"', repair="rename-correct-tag"),
    Check("RIQ306", "answer-rounded", "info", Kind.TEXT, "The answer's times differ from the segment within the tolerance; the segment is used.", '"a": "<answer>9.3 to 14.4</answer>", "timestamp": [9.31, 14.4]'),
    Check("RIQ307", "refusal-with-timestamp", "warning", Kind.TEXT, "The ground-truth refusal states times, so a completion with this answer is not a refusal.", '"a": "<answer>not from 3 to 5</answer>", "r": false'),
    Check("RIQ308", "no-reference-queries", "info", Kind.TEXT, "The video of a refusable query has no answerable query, so a correction cannot earn a bonus.", 'only queries with "r": false'),
    Check("RIQ309", "special-token", "error", Kind.TEXT, "The query contains a special token of the model, which would not be read as text.", '"q": "a dog <|video_pad|> runs"'),
    Check("RIQ310", "answer-mismatch", "warning", Kind.TEXT, "The answer of an answerable query contains no segment, or another one; the annotated segment is used.", '"a": "<answer>7 to 9</answer>", "timestamp": [1, 4]'),
    Check("RIQ401", "category-unknown", "warning", Kind.LABEL, "A mismatch category is not one of the published ones.", '"c": ["Sound/Loudness"]'),
    Check("RIQ402", "difficulty-unknown", "warning", Kind.LABEL, "The difficulty is not original, easy, medium or hard; it was dropped and kept as an extra field.", '"difficulty": "brutal"'),
    Check("RIQ403", "difficulty-mapped", "info", Kind.LABEL, "Another published name of a difficulty was mapped to easy, medium or hard.", '"hardness_level": "strong"', repair="map-difficulty"),
    Check("RIQ404", "single-task-type", "info", Kind.LABEL, "All queries of the item have the same task type, so none has a contrast answer.", 'only queries with "r": true'),
    Check("RIQ501", "duplicate", "error", Kind.DUPLICATE, "The same query with the same video and segment occurs earlier in the file.", "an item that occurs twice"),
    Check("RIQ502", "contradiction", "error", Kind.DUPLICATE, "The same query of the same video is marked both answerable and refusable.", '"a dog runs" with "r": true and with "r": false'),
    Check("RIQ503", "refusable-matches-answerable", "error", Kind.DUPLICATE, "A refusable query equals an answerable query of its video, except for case and punctuation.", '"A dog runs." refusable, "a dog runs" answerable'),
    Check("RIQ601", "train-eval-video-overlap", "error", Kind.LEAK, "The video also occurs in the annotations of --exclude-videos-from.", "train.json and eval.json both contain a.mp4"),
)  # fmt: skip

CATALOG = {check.name: check for check in _CHECKS}
CHECKS_BY_CODE = {check.code: check for check in _CHECKS}


class Finding(msgspec.Struct, frozen=True):
    """Result of a check: its location, the value that was found, and the action."""

    code: str
    severity: Severity  # of the check; an error if its repair is turned off
    item: int  # index in the file
    video: str | None  # as the item names it
    query: int | None  # index in the item; None for the whole item
    found: str
    action: str  # quarantined, repaired or noted, with details

    @property
    def check(self) -> Check:
        """The check of this finding."""
        return CHECKS_BY_CODE[self.code]

    @property
    def is_repair(self) -> bool:
        """Return True if the query was changed."""
        return self.action.startswith("repaired")


def catalog_page() -> str:
    """Return the catalog as Markdown."""
    lines = [
        "# Validation checks",
        "",
        "An **error** quarantines the query; a **warning** or an **info** does not. A query with several errors is",
        "counted under the first of: unreadable item, schema, video, segment, text, duplicate, leak.",
        "",
        "`--no-repair NAME` turns a repair off. What it would have fixed is then an error, with two exceptions: without",
        "`fill-duration` the annotation stays as it is, and without `map-difficulty` the difficulty is dropped.",
        "",
        "This page is printed by `python -m rarft.annotations.findings`.",
        "",
        "| code | check | severity | meaning | example | repair |",
        "|---|---|---|---|---|---|",
    ]
    for check in _CHECKS:
        example = check.example.replace("|", "\\|")
        repair = f"`{check.repair}`" if check.repair else ""
        lines.append(
            f"| {check.code} | {check.name} | {check.severity} | {check.explanation} | `{example}` | {repair} |"
        )
    lines += ["", "| repair | effect |", "|---|---|"]
    lines += [f"| `{name}` | {effect} |" for name, effect in REPAIRS.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(catalog_page(), end="")
