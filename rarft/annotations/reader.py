"""Reading annotations item by item: a JSON list, JSON Lines, or either one gzipped.

No more than one item and a buffer are held at a time. A list that cannot be parsed to its end is refused as a
whole, since what follows the damage is unknown; a bad line of JSON Lines is handed on as text.
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
_ITEM_KEYS = {"GRPO", "task_type"}  # of a published item, and of a row that validation wrote


@dataclass(frozen=True)
class MalformedLine:
    """A line of JSON Lines that is no JSON: its text (bytes that are no text are escaped) and what is wrong."""

    text: str
    problem: str


class _ParseError(Exception):
    """The document breaks off or breaks the grammar; the message says where."""


def _refuse(path: Path, problem: str) -> InputError:
    return InputError(
        f"annotations {path}: {problem}; give a JSON list or JSON Lines in the RIQ format, plain or gzipped"
    )


def _open_text(path: Path) -> TextIO:
    """The file as text: unzipped, its encoding recognised, its byte order mark gone."""
    try:
        raw = path.open("rb")
    except OSError as error:
        raise _refuse(path, f"cannot be read ({error.strerror})") from error
    # Closed with the text that is returned.
    stream: Any = gzip.open(raw) if raw.read(2) == b"\x1f\x8b" else raw  # noqa: SIM115
    raw.seek(0)
    try:
        head = stream.read(4)
        stream.seek(0)
    except (OSError, EOFError, zlib.error) as error:
        raise _refuse(path, f"is a damaged gzip file ({error})") from error
    encoding = json.detect_encoding(head)
    codecs.lookup(encoding)
    return io.TextIOWrapper(stream, encoding=encoding, errors="surrogateescape", newline="\n")


def _parse_list(text: TextIO) -> Iterator[Any]:
    """Items of a JSON list whose opening bracket is the stream's first character that is no white space."""
    decoder = json.JSONDecoder()
    buffer, position, consumed = "", 0, 0
    ended = False

    def more() -> bool:
        nonlocal buffer, position, consumed, ended
        chunk = text.read(max(_CHUNK, len(buffer) - position))
        ended = not chunk
        consumed += position
        buffer, position = buffer[position:] + chunk, 0
        return not ended

    def skip_white_space() -> str:
        nonlocal position
        while True:
            while position < len(buffer) and buffer[position] in _WHITE_SPACE:
                position += 1
            if position < len(buffer):
                return buffer[position]
            if not more():
                raise _ParseError(f"breaks off after {consumed + position:,} characters")

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
                    # A number at the very end of the buffer may go on in the next chunk.
                    if end < len(buffer) or ended:
                        break
                except json.JSONDecodeError as error:
                    problem = f"{error.msg.removesuffix(' at')} at character {consumed + error.pos:,}"
                    if ended:
                        raise _ParseError(problem) from error
                except (RecursionError, ValueError) as error:
                    raise _ParseError(f"{error} near character {consumed + position:,}") from error
                if not more() and position == len(buffer):
                    raise _ParseError(f"breaks off after {consumed + position:,} characters")
            position = end
            yield item
            separator = skip_white_space()
            position += 1
            if separator == "]":
                break
            if separator != ",":
                raise _ParseError(f"',' or ']' expected at character {consumed + position - 1:,}")
    while True:
        if rest := buffer[position:].strip(_WHITE_SPACE):
            raise _ParseError(f"goes on after its end with {rest[:20]!r}")
        position = len(buffer)
        if not more():
            return


def _printable(line: str) -> str:
    return line.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _parse_line(line: str) -> Any:
    try:
        line.encode("utf-8")
        return json.loads(line)
    except UnicodeEncodeError:
        return MalformedLine(_printable(line), "not UTF-8")
    except (ValueError, RecursionError) as error:
        return MalformedLine(_printable(line), str(error))


def _parse_lines(text: TextIO) -> Iterator[Any]:
    for line in text:
        if stripped := line.strip():
            yield _parse_line(stripped)


def _looks_like_items(path: Path) -> bool:
    """Whether a file that is no list can be JSON Lines: some line is an object, and it is not one foreign object."""
    with _open_text(path) as text:
        values = (value for value in _parse_lines(text) if not isinstance(value, MalformedLine))
        first = next((value for value in values if isinstance(value, dict)), None)
        if first is None:
            return False
        is_lines = ".jsonl" in path.suffixes or next(values, None) is not None
        return is_lines or bool(_ITEM_KEYS & first.keys())


def read_items(path: Path) -> Iterator[Any]:
    """The file's items in order, as Python objects; `MalformedLine` for a bad line of JSON Lines.

    Raises:
        InputError: not readable, empty, or neither a JSON list nor JSON Lines.
    """
    try:
        with _open_text(path) as text:
            head = text.read(_CHUNK).lstrip(_WHITE_SPACE)
        if not head:
            raise _refuse(path, "is empty")
        if head[0] != "[":
            if not _looks_like_items(path):
                raise _refuse(path, "is neither a JSON list nor JSON Lines")
            with _open_text(path) as text:
                yield from _parse_lines(text)
            return
        with _open_text(path) as text:
            yield from _parse_list(text)
    except _ParseError as error:
        raise InputError(
            f"annotations {path}: is no complete JSON list: {error}; was it cut off? copy it again, or mend it there"
        ) from error
    except UnicodeError as error:
        raise _refuse(path, f"is no text ({error})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise _refuse(path, f"cannot be read to its end ({error})") from error
