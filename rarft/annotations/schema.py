"""Schema of `riq.jsonl`: one validated query per line, written by validation and read by every later step."""

from codecs import BOM_UTF8
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec

from rarft.errors import InputError
from rarft.segments import Segment
from rarft.storage.location import S3Folder, open_local, parse_location

RIQ_JSONL = "riq.jsonl"

TaskType = Literal["answerable", "refusable"]
Difficulty = Literal["original", "easy", "medium", "hard"]
UNLABELED = "unlabeled"  # group of the queries without a difficulty
DIFFICULTY_ORDER = ("easy", "medium", "hard", "original", UNLABELED)  # in tables and plots

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
    """Location of a query in the annotations: file name, index of the item, index of the query in the item."""

    file: str
    item: int
    query: int


class VideoFile(msgspec.Struct, frozen=True):
    """Size in bytes of a video's file, and SHA-256 of its content, or the ETag of an object."""

    size: int
    hash: str


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """One query. Times are in seconds from the start of the video file."""

    id: str  # the same video name, query, task type and segments give the same id
    video: str  # path or URI
    query: str
    task_type: TaskType
    segments: list[Segment]  # of the answer, in order of time; empty for a refusable query
    segment: Segment | None  # the only one of `segments`; None if there are none or several
    duration: float | None  # of the video; None if unknown, and then the sample cannot be used for training
    crop: Segment | None  # part of the video that frames are taken from; None for all of it
    gt_answer: str  # without its tags
    contrast_answer: str | None  # ground-truth answer of the item's query of the other task type
    reference_queries: list[str]  # answerable queries of the same video, the item's own first
    categories: list[str]  # kinds of mismatch between a refusable query and the video
    difficulty: Difficulty | None  # `original` for an answerable query
    captions: list[tuple[float, float, str]]  # start, end and text
    source: Source
    extra: dict[str, Any]  # all other fields of the item and the query
    video_file: VideoFile | None = None  # when the video was validated; None if it was not opened

    def __post_init__(self) -> None:
        if self.segment != only_segment(self.segments):
            raise ValueError(f"segment is {self.segment}, segments are {self.segments}")


def only_segment(segments: Sequence[Segment]) -> Segment | None:
    """Return the segment of a list of one; None for any other list."""
    return segments[0] if len(segments) == 1 else None


def iterate_samples(path: Path, name: str | None = None) -> Iterator[Sample]:
    """Read the rows of a `riq.jsonl` file one by one, without a byte order mark.

    Raises:
        InputError: A row does not match the schema. The message names the file `name`; default: its path.
    """
    decoder = msgspec.json.Decoder(Sample)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                yield decoder.decode(line if number > 1 else line.removeprefix(BOM_UTF8))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise InputError(
                    f"{name or path}, line {number}: not a validated query ({error}); "
                    f"use the {RIQ_JSONL} of `rarft validate`"
                ) from error


@contextmanager
def open_samples(uri: str) -> Iterator[tuple[Path, str]]:
    """Yield the local path of a `riq.jsonl` file, or of the one in a folder, and its name for error messages.

    Raises:
        InputError: The file does not exist.
    """
    location = parse_location(uri)
    if not uri.endswith(".jsonl") and (isinstance(location, S3Folder) or location.path.is_dir()):
        location = location.child(RIQ_JSONL)
    with open_local(str(location)) as path:
        yield path, str(location)


def read_samples(uri: str) -> list[Sample]:
    """Return all rows of a `riq.jsonl` file, or of the folder that contains it.

    Raises:
        InputError: The file does not exist, is invalid, or has no rows.
    """
    with open_samples(uri) as (path, name):
        samples = list(iterate_samples(path, name))
    if not samples:
        raise InputError(f"{name}: contains no queries; see its report.html for the quarantined ones")
    return samples
