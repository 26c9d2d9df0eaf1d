"""Time-R1's training file: `{"video", "duration", "timestamp", "sentence", "video_start", "video_end", ...}`.

With a crop, the timestamp counts from its start and the duration is its length. `difficulty` is an IoU in percent, and
not the difficulty of a refusable query.
"""

from collections.abc import Iterator

from rarft.annotations.formats.record import Query, Record, as_object, crop_of, has_fields, other_fields


def recognize(record: Record) -> bool:
    """Check whether a record has this format."""
    return has_fields(record.value, "video", "sentence", "timestamp")


def read(record: Record) -> Iterator[Query]:
    """Yield the query of a record."""
    value = as_object(record.value, "video", "sentence", "timestamp")
    yield Query(
        video=value["video"],
        text=value["sentence"],
        segments=[value["timestamp"]],
        duration=value.get("duration"),
        crop=crop_of(value.get("video_start"), value.get("video_end")),
        is_relative=True,
        fields=other_fields(value, "video", "sentence", "timestamp", "duration", "video_start", "video_end"),
    )
