"""Read annotations item by item from a JSON list or JSON Lines, plain or gzipped.

At most one item and a buffer are in memory. A list that cannot be parsed to its end is rejected as a whole, because
what follows the error is unknown. A malformed line of JSON Lines is returned as text.
"""

import codecs
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from rarft.errors import InputError

_CHUNK = 1 << 20  # characters
_WHITE_SPACE = " \t\r\n"
_ITEM_KEYS = frozenset({"GRPO", "task_type"})  # of a published item, and of a row of riq.jsonl


@dataclass(frozen=True)
class MalformedLine:
    """Line of a JSON Lines file that is not valid JSON."""

    text: str  # invalid bytes are escaped
    problem: str  # message of the parser


class _ParseError(Exception):
    """Incomplete or invalid JSON list; the message gives the position."""


def _format_error(path: Path, problem: str) -> InputError:
    return InputError(f"{path}: {problem}; use a JSON list or JSON Lines, plain or gzipped")


def open_text(path: Path) -> TextIO:
    """Open a file as text: unzipped, with its encoding detected and without its byte order mark."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise _format_error(path, f"cannot be read ({error.strerror})") from error
    # Closed together with the text.
    stream: Any = gzip.open(raw) if raw.read(2) == b"\x1f\x8b" else raw  # noqa: SIM115
    raw.seek(0)
    try:
        head = stream.read(4)
        stream.seek(0)
    except (OSError, EOFError, zlib.error) as error:
        raise _format_error(path, f"corrupt gzip file ({error})") from error
    encoding = json.detect_encoding(head)
    codecs.lookup(encoding)
    return io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="\n")


def _parse_list(text: TextIO) -> Iterator[Any]:
    """Yield the items of a JSON list that starts at the stream's first character other than white space."""
    decoder = json.JSONDecoder()
    buffer, position, consumed = "", 0, 0
    at_end = False

    def read_more() -> bool:
        nonlocal buffer, position, consumed, at_end
        chunk = text.read(max(_CHUNK, len(buffer) - position))
        at_end = not chunk
        consumed += position
        buffer, position = buffer[position:] + chunk, 0
        return not at_end

    def unexpected_end() -> _ParseError:
        return _ParseError(f"unexpected end of file at character {consumed + position:,}")

    def skip_white_space() -> str:
        nonlocal position
        while True:
            while position < len(buffer) and buffer[position] in _WHITE_SPACE:
                position += 1
            if position < len(buffer):
                return buffer[position]
            if not read_more():
                raise unexpected_end()

    skip_white_space()
    position += 1
    if skip_white_space() == "]":
        position += 1
    else:
        while True:
            skip_white_space()
            while True:
                try:
                    item, end = decoder.raw_decode(buffer, position)
                    # A number at the end of the buffer may continue in the next chunk.
                    if end < len(buffer) or at_end:
                        break
                except json.JSONDecodeError as error:
                    problem = f"{error.msg.removesuffix(' at')} at character {consumed + error.pos:,}"
                    if at_end:
                        raise _ParseError(problem) from error
                except (RecursionError, ValueError) as error:
                    raise _ParseError(f"{error} near character {consumed + position:,}") from error
                if not read_more() and position == len(buffer):
                    raise unexpected_end()
            position = end
            yield item
            separator = skip_white_space()
            position += 1
            if separator == "]":
                break
            if separator != ",":
                raise _ParseError(f"expected ',' or ']' at character {consumed + position - 1:,}")
    while True:
        if rest := buffer[position:].strip(_WHITE_SPACE):
            raise _ParseError(f"unexpected text after the end of the list: {rest[:20]!r}")
        position = len(buffer)
        if not read_more():
            return


def parse_line(line: str) -> Any:
    """Return the value of a line of JSON Lines, or a `MalformedLine`."""
    try:
        line.encode("utf-8")
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        problem = "not valid UTF-8" if isinstance(error, UnicodeEncodeError) else str(error)
        return MalformedLine(line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), problem)


def _parse_lines(text: TextIO) -> Iterator[Any]:
    for line in text:
        if stripped := line.strip():
            yield parse_line(stripped)


def _looks_like_json_lines(path: Path, keys: frozenset[str]) -> bool:
    """Check that a line of the file is an object, and that the file is not one single object of another format."""
    with open_text(path) as text:
        values = (value for value in _parse_lines(text) if not isinstance(value, MalformedLine))
        first = next((value for value in values if isinstance(value, dict)), None)
        if first is None:
            return False
        has_lines = ".jsonl" in path.suffixes or next(values, None) is not None
        return has_lines or bool(keys & first.keys())


def read_items(path: Path, keys: frozenset[str] = _ITEM_KEYS) -> Iterator[Any]:
    """Yield the file's items in order as Python objects, and a `MalformedLine` for each malformed line of JSON Lines.

    Args:
        path: JSON list or JSON Lines, plain or gzipped, in any encoding of Unicode.
        keys: An item has at least one of these keys, which an object of another format has not.

    Raises:
        InputError: The file cannot be read, is empty, or is neither a JSON list nor JSON Lines.
    """
    try:
        with open_text(path) as text:
            head = text.read(_CHUNK).lstrip(_WHITE_SPACE)
        if not head:
            raise _format_error(path, "empty file")
        if head[0] != "[":
            if not _looks_like_json_lines(path, keys):
                raise _format_error(path, "neither a JSON list nor JSON Lines")
            with open_text(path) as text:
                yield from _parse_lines(text)
            return
        with open_text(path) as text:
            yield from _parse_list(text)
    except _ParseError as error:
        raise InputError(f"{path}: truncated or invalid JSON list ({error}); fix it or copy it again") from error
    except UnicodeError as error:
        raise _format_error(path, f"not valid text ({error})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise _format_error(path, f"cannot be read to its end ({error})") from error
