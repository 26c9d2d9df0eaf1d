"""Charades-RF and ActivityNet-RF of RaTSG: `{VIDEO: {"duration", "sts": [QUERY]}}`.

A query is `{"sentence", "id", "timestamp", "no_answer"}`. The timestamp of a refusable one is empty.
"""

from collections.abc import Iterator

from rarft.annotations.formats.record import (
    Query,
    Record,
    UnreadablePart,
    as_list,
    as_object,
    has_fields,
    other_fields,
)


def recognize(record: Record) -> bool:
    """Check whether a record has this format."""
    return isinstance(record.key, str) and has_fields(record.value, "sts")


def read(record: Record) -> Iterator[Query | UnreadablePart]:
    """Yield the queries of a video."""
    value = as_object(record.value, "sts")
    shared = other_fields(value, "sts", "duration")
    for number, query in enumerate(as_list(value, "sts")):
        if not has_fields(query, "sentence", "timestamp") or not isinstance(query.get("no_answer"), bool):
            yield UnreadablePart(f"sts[{number}]: not a sentence with a timestamp and no_answer", query)
            continue
        is_absent = query["no_answer"]
        fields = shared | other_fields(query, "sentence", "timestamp", "no_answer")
        if is_absent and query["timestamp"]:
            fields["timestamp"] = query["timestamp"]
        yield Query(
            video=record.key,
            text=query["sentence"],
            answerable=not is_absent,
            segments=[] if is_absent else [query["timestamp"]],
            duration=value.get("duration"),
            fields=fields,
        )
