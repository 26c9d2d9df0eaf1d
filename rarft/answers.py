"""Parser of answers: the one definition of a segment, a refusal, and times that cannot be read (decision D2).

Rewards and evaluation both use it, so they always agree. Only `12.5 to 17.5` is a segment. Times in any other form,
such as `12.5s - 17.5s`, are unreadable: not a refusal, and not guessed. Numbers that are not times, as in "there are
only 2 people, not 3", leave a refusal a refusal.

Possessive and bounded repetitions keep matching linear in the length of the text.
"""

import re
from typing import Literal

from rarft.segments import Segment

Outcome = Literal["segment", "refusal", "unreadable"]

_DIGIT = re.compile(r"\d")
# What every segment, and every pair of times, contains. They are found faster than either.
_NUMBER_TO = re.compile(r"\d\s{1,16}+to\s")
_TWO_NUMBERS = re.compile(r"\d\D++\d")
_UNIT = r"(?:s|secs?|seconds?|ms|mins?|minutes?|hrs?|hours?|frames?)\b"
_QUANTITY = (
    r"\s{0,4}+(?:[°$€£]|(?:people|persons|items|objects|times|years?|days?|points?|steps?|percent|degrees?|"
    r"kg|km|cm|mm|met(?:er|re)s?|inch(?:es)?|feet|miles?|pounds?|dollars?|euros?|liters?)\b)"
)

# `NUMBER to NUMBER` in seconds, not part of `1:12 to 1:17`, `2,12 to 2,17`, `-5 to 3`, `frames 1 to 9`, `1 to 2 min`.
_NUMBER = r"(\d{1,32}+(?:\.\d{1,32}+)?+)"
_SEGMENT = re.compile(
    rf"(?:\b((?i:frames?|mins?|minutes?|hrs?|hours?))\W{{1,3}}+)?"
    rf"(?<!\d)(?<!\d[.,:/eE])(?<![-−–—])(?<!^\.)(?<!\s\.){_NUMBER}\s{{1,16}}+to\s{{1,16}}+{_NUMBER}"
    rf"(?!\d|[.,:/eE]\d|\s{{0,4}}+(?:%|(?i:(?!s)(?:m|h|{_UNIT})\b))|(?i:{_QUANTITY}))"
)

# Two numbers of any notation, with a link between them, and what makes them times.
_ANY = r"\.?\d++(?:[.,:/]\d++)*+"
_GAP = r"(?:[\s*_`\"'()\[\]~]|</?\w{0,16}>|(?:at|about|around|approximately|roughly|the)\b){0,16}+"
_PAIR = re.compile(
    rf"(?:\b(?P<lead>between|from|{_UNIT})\W{{1,3}}+|(?P<bracket>\[)\s{{0,4}}+)?+"
    rf"(?P<minus>(?<![\w)])[-−])?+(?<![\d.,:/])(?P<first>{_ANY})(?=\s{{0,16}}+(?P<unit>{_UNIT})?+{_GAP}"
    rf"(?:(?P<to>(?:up\s)?to|until|till)|(?P<dash>[-−–—~→]|[-=]>|\.{{2,3}}|through)|(?P<and>and)|[,;|])"
    rf"{_GAP}(?P<prefix>{_UNIT})?+{_GAP}(?P<second>{_ANY})(?P<closed>\s{{0,4}}+\])?+\s{{0,4}}+(?P<suffix>{_UNIT})?+(?!{_QUANTITY}))",
    re.IGNORECASE,
)
_PRECISE = re.compile(r"\d*\.\d+|\d+,\d\d?|\d+(?::\d\d)+(?:[.,]\d+)?")  # decimals, or a clock

_AT = r"(?:\W|(?:time|at|from|is|around|about|second|frame)\b){0,8}+"
_START_END = re.compile(
    rf"\b(?:start|begin)(?:s|ning|ing)?(?:_time)?\b{_AT}{_ANY}\D{{0,30}}\b(?:end|stop|finish)(?:s|es|ing)?(?:_time)?\b{_AT}\d",
    re.IGNORECASE,
)

_NUMBER_WORD = (
    "zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|"
    "eighteen|nineteen|twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred|half"
)
_NUMBER_WORDS = frozenset(_NUMBER_WORD.split("|"))
_LETTERS = re.compile(r"[^\W\d_]+")
_TIME_WORD = (
    "s|secs?|seconds?|ms|m|mins?|minutes?|h|hrs?|hours?|frames?|from|to|until|till|through|between|and|at|about|around|"
    "approximately|roughly|up|starts?|begins?|ends?|times?|timestamps?|timestep|answer|segment|moment|event|interval|"
    "the|it|is|occurs|happens"
)
_SPELLED = rf"(?:\b(?:{_NUMBER_WORD})[-\s]{{1,2}}){{1,3}}+"
_SPELLED_PAIR = re.compile(
    rf"{_SPELLED}(?:{_UNIT}\s)?(?:to|until|till)\s{_SPELLED}{_UNIT}|\bbetween\s{_SPELLED}and\s{_SPELLED}{_UNIT}",
    re.IGNORECASE,
)
_WORD = re.compile(
    rf"(?P<number>\d++|\b(?:{_NUMBER_WORD})(?![^\W\d_]))|(?P<time>\b(?:{_TIME_WORD})(?![^\W\d_]))|[^\W\d_]++",
    re.IGNORECASE,
)


def find_segments(text: str) -> list[Segment]:
    """Return each `NUMBER to NUMBER` of a text, in seconds and unchecked: an end may precede its start."""
    return [(float(match[2]), float(match[3])) for match in _SEGMENT.finditer(text) if match[1] is None]


def _is_pair_of_times(match: re.Match[str]) -> bool:
    """Check that two linked numbers are times: the link or a unit is one of times, or their notation is."""
    if match["to"]:
        return True
    precise = [_PRECISE.fullmatch(match[name]) is not None for name in ("first", "second")]
    has_unit = match["unit"] or match["prefix"] or match["suffix"]
    lead = (match["lead"] or "").lower()
    if match["dash"]:
        return bool(has_unit or match["minus"] or any(precise) or lead not in ("", "between"))
    if match["and"]:
        return lead in ("between", "from") and bool(has_unit or any(precise))
    return all(precise) or bool(match["bracket"] and match["closed"])


def states_times(text: str) -> bool:
    """Check whether a text without a segment states times in another form, in time linear in its length.

    Either two numbers of it are times, or it consists of nothing but numbers and words about time.
    """
    lower_case = text.casefold()
    # The first condition is fast, but it also finds the "one" of "someone".
    has_words = any(map(lower_case.__contains__, _NUMBER_WORDS)) and not _NUMBER_WORDS.isdisjoint(
        _LETTERS.findall(lower_case)
    )
    if not has_words and _DIGIT.search(text) is None:
        return False
    if all(match.lastgroup for match in _WORD.finditer(text)) or (has_words and _SPELLED_PAIR.search(text)):
        return True
    return _TWO_NUMBERS.search(text) is not None and (
        any(map(_is_pair_of_times, _PAIR.finditer(text))) or _START_END.search(text) is not None
    )


def parse_answer(text: str) -> tuple[Outcome | None, list[Segment]]:
    """Return the outcome of an answer and its segments; a blank answer has no outcome."""
    segments = find_segments(text) if _NUMBER_TO.search(text) else []
    if segments:
        return "segment", segments
    if not text.strip():
        return None, []
    return "unreadable" if states_times(text) else "refusal", []
