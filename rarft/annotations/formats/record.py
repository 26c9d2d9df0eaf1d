"""Records of an annotation file, and the queries that a format finds in them.

A format is a function from a `Record` to queries. It copies values as they are, since validation checks them. If a
record has another structure, it raises a `ValueError` with the reason, or yields an `UnreadablePart`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Record(NamedTuple):
    """One entry of a file.

    Attributes:
        key: Its index from 0 in a JSON list, JSON Lines or a text file, or its key in a JSON object.
        value: A line of a text file, or any JSON value.
    """

    key: int | str
    value: Any


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query about one video. Times are in seconds.

    Attributes:
        video: Name or path of the video, with or without its suffix.
        text: Text of the query.
        answerable: Whether the video shows it.
        segments: Pairs of start and end; empty if the query is refusable.
        answer: Ground-truth refusal with its reason; empty if unknown.
        duration: Length of the video, or of the crop if times are relative to it; None if unknown.
        crop: Start and end of the part of the video that the record is about; None for all of it.
        is_relative: Whether `segments` count from the start of the crop.
        fields: Other fields of the record, which are kept as its provenance.
    """

    video: Any
    text: Any
    answerable: bool = True
    segments: Sequence[Any] = ()
    answer: str = ""
    duration: Any = None
    crop: tuple[Any, Any] | None = None
    is_relative: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class UnreadablePart:
    """A part of a record that the format cannot read, such as one of its queries."""

    reason: str
    value: Any


ReadRecord = Callable[[Record], Iterable[Query | UnreadablePart]]


def other_fields(value: Mapping[str, Any], *known: str) -> dict[str, Any]:
    """Return the fields of a record that the format does not use."""
    return {name: other for name, other in value.items() if name not in known}


def as_object(value: Any, *required: str) -> dict[str, Any]:
    """Return a JSON object that has all required fields; otherwise raise a `ValueError`."""
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    if missing := [name for name in required if name not in value]:
        raise ValueError(f"no field {missing[0]}")
    return value


def as_list(value: Mapping[str, Any], name: str) -> list[Any]:
    """Return a field that is a list; otherwise raise a `ValueError`."""
    found = value[name]
    if not isinstance(found, list):
        raise ValueError(f"{name} is not a list")
    return found


def pairs(value: Mapping[str, Any], first: str, second: str) -> list[tuple[Any, Any]]:
    """Return two lists of equal length as pairs; otherwise raise a `ValueError`."""
    one, other = as_list(value, first), as_list(value, second)
    if len(one) != len(other):
        raise ValueError(f"{len(one)} {first}, but {len(other)} {second}")
    return list(zip(one, other, strict=True))


def has_fields(value: Any, *names: str) -> bool:
    """Check that a value is a JSON object with these fields."""
    return isinstance(value, dict) and all(name in value for name in names)


def crop_of(start: Any, end: Any) -> tuple[Any, Any] | None:
    """Return a crop; None if neither end is given."""
    return None if start is None and end is None else (start, end)
