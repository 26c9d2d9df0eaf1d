"""ActivityNet Captions: `{VIDEO: {"duration", "timestamps": [[START, END]], "sentences": [QUERY]}}`.

VTimeLLM's evaluation files, and Charades-STA as JSON, have the same format.
"""

from collections.abc import Iterator

from rarft.annotations.formats.record import Query, Record, as_object, has_fields, other_fields, pairs


def recognize(record: Record) -> bool:
    """Check whether a record has this format."""
    return isinstance(record.key, str) and has_fields(record.value, "timestamps", "sentences")


def read(record: Record) -> Iterator[Query]:
    """Yield the queries of a video."""
    value = as_object(record.value, "timestamps", "sentences")
    fields = other_fields(value, "duration", "timestamps", "sentences")
    for segment, sentence in pairs(value, "timestamps", "sentences"):
        yield Query(video=record.key, text=sentence, segments=[segment], duration=value.get("duration"), fields=fields)
