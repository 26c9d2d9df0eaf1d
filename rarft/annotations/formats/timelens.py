"""TimeLens-100K and TimeLens2-93K: `{"video_path", "duration", "events": [{"query", "span": [[START, END]]}]}`.

A record may have `query` and `span` itself instead of `events`. A span is a pair or a list of pairs.
"""

from collections.abc import Iterator
from typing import Any

from rarft.annotations.formats.record import (
    Query,
    Record,
    UnreadablePart,
    as_list,
    as_object,
    has_fields,
    other_fields,
)


def as_segments(span: Any) -> list[Any]:
    """Return a span as a list of pairs."""
    return span if isinstance(span, list) and all(isinstance(part, list) for part in span) else [span]


def recognize(record: Record) -> bool:
    """Check whether a record has this format."""
    value = record.value
    return has_fields(value, "video_path", "events") or has_fields(value, "video_path", "query", "span")


def read(record: Record) -> Iterator[Query | UnreadablePart]:
    """Yield the queries of a record."""
    value = as_object(record.value, "video_path")
    events = as_list(value, "events") if "events" in value else [as_object(value, "query", "span")]
    known = ("video_path", "duration", "events", "query", "span")
    for number, event in enumerate(events):
        if not has_fields(event, "query", "span"):
            yield UnreadablePart(f"events[{number}]: not a query with a span", event)
            continue
        yield Query(
            video=value["video_path"],
            text=event["query"],
            segments=as_segments(event["span"]),
            duration=value.get("duration"),
            fields=other_fields(value, *known) | other_fields(event, *known),
        )
