"""Charades-STA: text lines `VIDEO START END##QUERY`. Durations are in another file."""

import re
from collections.abc import Iterator

from rarft.annotations.formats.record import Query, Record

_LINE = re.compile(r"(\S+)\s+(\S+)\s+(\S+?)\s*##(.*)", re.DOTALL)


def recognize(record: Record) -> bool:
    """Check whether a record has this format."""
    return isinstance(record.value, str) and _LINE.fullmatch(record.value) is not None


def read(record: Record) -> Iterator[Query]:
    """Yield the query of a line."""
    match = _LINE.fullmatch(record.value) if isinstance(record.value, str) else None
    if match is None:
        raise ValueError("not a line VIDEO START END##QUERY")
    video, start, end, text = match.groups()
    yield Query(video=video, text=text, segments=[[start, end]])
