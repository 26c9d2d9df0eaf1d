"""JSON encoding of validated queries, quarantined rows and findings."""

import json
from typing import Any

import msgspec


def has_only_finite_numbers(value: Any) -> bool:
    """Check that a value contains no NaN or Infinity, which are not valid JSON."""
    if isinstance(value, float):
        return value - value == 0.0
    if isinstance(value, dict):
        return all(map(has_only_finite_numbers, value.values()))
    return not isinstance(value, list) or all(map(has_only_finite_numbers, value))


def is_unicode(value: Any) -> bool:
    """Check that every string in a value is valid Unicode, without lone surrogates or bytes of another encoding."""
    try:
        compact_json(value)
    except UnicodeEncodeError:
        return False
    return True


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON allows and UTF-8 does not, with question marks."""
    return text.encode("utf-8", "replace").decode()


def compact_json(value: Any) -> bytes:
    """Encode a value on one line in UTF-8. NaN and Infinity become null.

    Raises:
        UnicodeEncodeError: A string is not valid Unicode.
    """
    try:
        return msgspec.json.encode(value)
    except OverflowError:  # an integer of more than 64 bits
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":"), ensure_ascii=False).encode()


def ascii_json(value: Any) -> bytes:
    """Encode anything that Python's parser reads on one line in ASCII, so that it is read back unchanged."""
    return json.dumps(value, separators=(",", ":")).encode()
