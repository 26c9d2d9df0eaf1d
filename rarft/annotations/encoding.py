"""JSON as validation writes it: compact, and able to hold whatever was read."""

import json
from typing import Any

import msgspec


def has_only_finite_numbers(value: Any) -> bool:
    """Whether JSON proper can hold the value; NaN and infinities are Python's own."""
    if isinstance(value, float):
        return value - value == 0.0
    if isinstance(value, dict):
        return all(map(has_only_finite_numbers, value.values()))
    return not isinstance(value, list) or all(map(has_only_finite_numbers, value))


def is_text(value: Any) -> bool:
    """Whether every string in the value is Unicode text: no lone surrogate, and no byte of another encoding."""
    try:
        compact_json(value)
    except UnicodeEncodeError:
        return False
    return True


def printable(text: str) -> str:
    """A text with what is no Unicode in it escaped."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def compact_json(value: Any) -> bytes:
    """A value on one line, in UTF-8; a NaN or an infinity becomes null.

    Raises:
        UnicodeEncodeError: a string is no Unicode text.
    """
    try:
        return msgspec.json.encode(value)
    except OverflowError:  # an integer past 64 bits
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":"), ensure_ascii=False).encode()


def json_as_read(value: Any) -> bytes:
    """Anything that Python's parser reads, on one line in ASCII, so that it reads back as it was."""
    return json.dumps(value, separators=(",", ":")).encode()
