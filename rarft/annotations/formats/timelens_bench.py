"""TimeLens-Bench: `{VIDEO: {"duration", "spans": [[START, END]], "queries": [QUERY]}}`."""

from collections.abc import Iterator

from rarft.annotations.formats.record import Query, Record, as_object, has_fields, other_fields, pairs
from rarft.annotations.formats.timelens import as_segments


def recognize(record: Record) -> bool:
    """Check whether a record has this format."""
    return isinstance(record.key, str) and has_fields(record.value, "spans", "queries")


def read(record: Record) -> Iterator[Query]:
    """Yield the queries of a video."""
    value = as_object(record.value, "spans", "queries")
    fields = other_fields(value, "duration", "spans", "queries")
    for span, text in pairs(value, "spans", "queries"):
        segments = as_segments(span)
        yield Query(video=record.key, text=text, segments=segments, duration=value.get("duration"), fields=fields)
