"""Times in fields that hold nothing else, such as a true segment. They may be written in more ways than in an answer.

What has two readings is rejected: `1,200` may be 1.2 or 1200, and `12 to 17:30` mixes seconds and a clock.
"""

import json
import re
from typing import Any

from rarft.annotations.parsing import parse_number
from rarft.segments import Segment

_SECONDS = r"\d+(?:\.\d+|,\d\d?)?"
_CLOCK = r"(?:\d{1,2}:[0-5]\d|\d{1,3}):[0-5]\d(?:[.,]\d+)?"
_UNIT = r"(?:\s*(?:s|secs?|seconds?)\b)?"
_TIME = re.compile(rf"({_CLOCK}|{_SECONDS}){_UNIT}")
_LINK = r"\s*(?:\b(?:to|until|and)\b|[-–—−~])\s*"
_RANGE = re.compile(
    "|".join(
        rf"(?<![\w.,:/−-])(?:{time}){_UNIT}{_LINK}(?:{time}){_UNIT}(?![\w:/−-]|[.,]\d)" for time in (_SECONDS, _CLOCK)
    )
)
_WORDS_AROUND = {"answer", "from", "between", "and"}


def parse_time(value: Any) -> float | None:
    """Return seconds, written as a number, `12,5`, `12.5 s`, `0:12.5` or `1:00:12`; None for anything else."""
    match = _TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        return parse_number(value)
    parts = match[1].replace(",", ".").split(":")
    return sum(float(part) * 60.0**power for power, part in enumerate(reversed(parts)))


def _parse_pair(values: Any) -> Segment | None:
    """Parse two times of the same notation."""
    if not isinstance(values, list | tuple) or len(values) != 2 or (":" in str(values[0])) != (":" in str(values[1])):
        return None
    start, end = map(parse_time, values)
    return None if start is None or end is None else (start, end)


def _parse_text(text: str) -> list[Segment | None]:
    """Parse text of ranges, such as `12.5 to 17.5, 20 to 24` or `0:05 - 0:10`; return [] if it has anything else."""
    rest = _RANGE.sub(" ", text)
    if re.search(r"[\d%−-]", rest) or set(re.findall(r"\w+", rest.lower())) - _WORDS_AROUND:
        return []
    return [_parse_pair([time[0] for time in _TIME.finditer(found[0])]) for found in _RANGE.finditer(text)]


def parse_segments(value: Any) -> list[Segment] | None:
    """Parse a pair of times, a list of pairs, or the text of either; return None for anything else.

    The segments are in seconds and unchecked: an end may precede its start.
    """
    if isinstance(value, str):
        segments = _parse_text(value)
        if not segments:
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                return None
    if not isinstance(value, str):
        if not isinstance(value, list | tuple) or not value:
            return None
        is_list = all(isinstance(pair, list | tuple) for pair in value)
        segments = [_parse_pair(pair) for pair in (value if is_list else [value])]
    known = [segment for segment in segments if segment is not None]
    return known if len(known) == len(segments) else None
