"""TVGBench: `{"path", "question", "answer": "13.4-28.1", "start", "end", "duration", ...}`.

With a crop from `start` to `end`, the answer counts from its start and the duration is its length.
"""

import re
from collections.abc import Iterator

from rarft.annotations.formats.record import Query, Record, as_object, crop_of, has_fields, other_fields

_ANSWER = re.compile(r"\s*(\d+(?:\.\d+)?)\s*-\s*(\d+(?:\.\d+)?)\s*")


def recognize(record: Record) -> bool:
    """Check whether a record has this format."""
    return has_fields(record.value, "path", "question", "answer")


def read(record: Record) -> Iterator[Query]:
    """Yield the query of a record."""
    value = as_object(record.value, "path", "question", "answer")
    match = _ANSWER.fullmatch(str(value["answer"]))
    if match is None:
        raise ValueError(f"answer is {str(value['answer'])[:40]!r}, not START-END in seconds")
    yield Query(
        video=value["path"],
        text=value["question"],
        segments=[[match[1], match[2]]],
        duration=value.get("duration"),
        crop=crop_of(value.get("start"), value.get("end")),
        is_relative=True,
        fields=other_fields(value, "path", "question", "answer", "duration", "start", "end"),
    )
