"""Read the records of an annotation file of any format: JSON, JSON Lines or lines of text, plain or gzipped."""

import json
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from rarft.annotations.formats.record import Record
from rarft.annotations.reader import open_text, parse_line, read_items
from rarft.errors import InputError


def read_records(path: Path) -> Iterator[Record]:
    """Yield the records of a file in order; a malformed line of JSON Lines is a `MalformedLine`.

    Raises:
        InputError: The file cannot be read, is empty, or is truncated JSON.
    """
    head = _first_lines(path)
    if head[0].startswith("["):
        yield from map(Record._make, enumerate(read_items(path)))
    elif head[0].startswith("{"):
        yield from _read_objects(path, head)
    else:
        yield from map(Record._make, enumerate(_lines(path)))


def _lines(path: Path) -> Iterator[str]:
    with open_text(path) as text:
        try:
            yield from filter(None, map(str.strip, text))
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: cannot be read to its end ({error}); copy it again") from error


def _first_lines(path: Path) -> list[str]:
    lines = list(islice(_lines(path), 2))
    if not lines:
        raise InputError(f"{path}: empty file; use a file with annotations")
    return lines


def _is_object(line: str) -> bool:
    return isinstance(parse_line(line), dict)


def _read_objects(path: Path, head: list[str]) -> Iterator[Record]:
    """Yield the lines of JSON Lines, or the entries of a JSON object whose values are objects."""
    if (len(head) == 2 or ".jsonl" in path.suffixes) and any(map(_is_object, head)):
        yield from map(Record._make, enumerate(map(parse_line, _lines(path))))
        return
    with open_text(path) as text:
        try:
            content: dict[str, Any] = json.load(text, object_pairs_hook=_unique_keys)
        except (ValueError, RecursionError, OSError, EOFError, zlib.error) as error:
            raise InputError(f"{path}: truncated or invalid JSON ({error}); fix it or copy it again") from error
    if all(isinstance(value, dict) for value in content.values()):
        yield from map(Record._make, content.items())
    else:
        yield Record(0, content)


def _unique_keys(entries: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the entries of a JSON object. A key that occurs twice would lose the first entry."""
    content = dict(entries)
    if len(content) != len(entries):
        keys = [key for key, _ in entries]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {repeated!r} occurs twice")
    return content
