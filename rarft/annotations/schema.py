"""The rows that validation writes and every later step reads: `riq.jsonl`, one query a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from rarft.errors import InputError
from rarft.segments import Segment
from rarft.storage import s3
from rarft.storage.files import join_path, local_path, open_local

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
    """Read `riq.jsonl` row by row; `name` is what people call it, where that is not its path.

    Raises:
        InputError: a row is not what validation writes.
    """
    decoder = msgspec.json.Decoder(Sample)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{name or path}, line {number}: is no validated query ({error}); "
                    f"give the {RIQ_JSONL} of `rarft validate`"
                ) from error


def read_samples(uri: str, what: str) -> list[Sample]:
    """All rows of a `riq.jsonl`, or of the folder that holds one.

    Raises:
        InputError: not there, damaged, or without a single query.
    """
    if s3.is_object_uri(uri):
        uri = uri if uri.endswith(".jsonl") else join_path(uri, RIQ_JSONL)
    elif local_path(uri, what).is_dir():
        uri = str(local_path(uri, what) / RIQ_JSONL)
    with open_local(uri, what) as path:
        samples = list(iterate_samples(path, uri))
    if not samples:
        raise InputError(f"{what} {uri}: holds no query; look into its report.html for what was quarantined")
    return samples
