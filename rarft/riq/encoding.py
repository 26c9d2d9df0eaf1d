"""JSON as validation writes it: compact, and able to hold whatever was read."""

import json
from typing import Any

import msgspec


def _has_only_finite_numbers(value: Any) -> bool:
    """Whether JSON proper can hold the value; NaN and infinities are Python's own."""
    if isinstance(value, float):
        return value - value == 0.0
    if isinstance(value, dict):
        return all(map(_has_only_finite_numbers, value.values()))
    return not isinstance(value, list) or all(map(_has_only_finite_numbers, value))


def compact_json(value: Any) -> bytes:
    """A value on one line, in UTF-8; where it holds a lone surrogate or a huge integer, in ASCII escapes."""
    try:
        return msgspec.json.encode(value)
    except (UnicodeEncodeError, OverflowError, msgspec.MsgspecError):
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def compact_json_as_read(value: Any, free: Any) -> bytes:
    """The same for a value of which the part `free` may hold anything that Python's parser reads.

    msgspec would write a NaN as null; Python's own encoder writes it so that it reads back.
    """
    if _has_only_finite_numbers(free):
        return compact_json(value)
    return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()
