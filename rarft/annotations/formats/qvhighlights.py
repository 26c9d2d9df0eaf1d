"""QVHighlights: `{"qid", "query", "duration", "vid", "relevant_windows": [[START, END]], ...}`.

NA-VMR and Soccer-GMR have the same format with refusable queries, whose windows are `[[0, 0]]` or `[]`. The published
test split of QVHighlights has no windows: its queries are unreadable, not refusable.
"""

from collections.abc import Iterator

from rarft.annotations.formats.record import Query, Record, as_list, as_object, has_fields, other_fields


def recognize(record: Record) -> bool:
    """Check whether a record has this format."""
    return has_fields(record.value, "vid", "query") and (
        "relevant_windows" in record.value or "saliency_scores" in record.value or "qid" in record.value
    )


def read(record: Record) -> Iterator[Query]:
    """Yield the query of a record."""
    value = as_object(record.value, "vid", "query", "relevant_windows")
    windows = as_list(value, "relevant_windows")
    is_absent = all(window == [0, 0] for window in windows)
    yield Query(
        video=value["vid"],
        text=value["query"],
        answerable=not is_absent,
        segments=[] if is_absent else windows,
        duration=value.get("duration"),
        fields=other_fields(value, "vid", "query", "relevant_windows", "duration"),
    )
