"""The rows that validation writes and every later step reads: `riq.jsonl`, one query a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from rarft.errors import InputError
from rarft.segments import Segment
from rarft.storage.location import S3Folder, open_local, parse_location

RIQ_JSONL = "riq.jsonl"

TaskType = Literal["answerable", "refusable"]
Difficulty = Literal["original", "easy", "medium", "hard"]

CATEGORIES = frozenset(
    {
        "Action/ActionSequence",
        "Action/FineGrainedAction",
        "Object/ObjectExistence",
        "Object/ObjectPartRelation",
        "Object/ObjectSpatialRelation",
        "Object/ObjectMoving",
        "Scene/SceneTransition",
        "Scene/SceneExistence",
        "Attribute/AttributeValue",
        "Attribute/Counting",
        "Attribute/Comparison",
    }
)


class Source(msgspec.Struct, frozen=True):
    """Where a query stands in the annotations: file name, index of the item, index of the query in it."""

    file: str
    item: int
    query: int


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One query. Times are absolute seconds of the video file.

    Attributes:
        id: stable across runs: the same video name, query, task type and segment give the same id.
        video: path that opens.
        query: what is asked.
        task_type: whether the video answers it.
        segment: where the answer is; None for a refusable query.
        duration: of the video; None where it is not known, and then the sample cannot be trained on.
        crop: the part of the video that frames are taken from; None for all of it.
        gt_answer: the ground-truth answer without its tags.
        contrast_answer: the ground-truth answer of the item's opposite query, where it has one.
        reference_queries: answerable queries of the same video, the item's own first.
        categories: how a refusable query mismatches the video.
        difficulty: original for an answerable query; easy, medium or hard.
        captions: timed captions, (start, end, text).
        source: where it stands in the annotations.
        extra: every other field of the item and the query, untouched.
    """

    id: str
    video: str
    query: str
    task_type: TaskType
    segment: Segment | None
    duration: float | None
    crop: Segment | None
    gt_answer: str
    contrast_answer: str | None
    reference_queries: list[str]
    categories: list[str]
    difficulty: Difficulty | None
    captions: list[tuple[float, float, str]]
    source: Source
    extra: dict[str, Any]


def iterate_samples(path: Path, name: str | None = None) -> Iterator[Sample]:
    """Read the rows of a `riq.jsonl` file one by one.

    Args:
        path: Local file.
        name: Name of the file in messages; default: its path.

    Raises:
        InputError: A row does not match the schema.
    """
    decoder = msgspec.json.Decoder(Sample)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{name or path}, line {number}: not a validated query ({error}); "
                    f"use the {RIQ_JSONL} of `rarft validate`"
                ) from error


def read_samples(uri: str) -> list[Sample]:
    """Return all rows of a `riq.jsonl` file, or of the folder that contains it.

    Raises:
        InputError: The file does not exist, is invalid, or has no rows.
    """
    location = parse_location(uri)
    if not uri.endswith(".jsonl") and (isinstance(location, S3Folder) or location.path.is_dir()):
        location = location.child(RIQ_JSONL)
    with open_local(str(location)) as path:
        samples = list(iterate_samples(path, str(location)))
    if not samples:
        raise InputError(f"{location}: contains no queries; see its report.html for the quarantined ones")
    return samples
