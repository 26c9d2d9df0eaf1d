"""Tokens and inflections of English, by rules: no tagger, and nothing to download."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

_WORD = re.compile(r"[A-Za-z]+(?:['’-][A-Za-z]+)*|\d+(?:\.\d+)?")
_VOWELS = "aeiou"
# Words whose first letter does not show whether "a" or "an" precedes them.
_AN_EXCEPTIONS = {"hour", "honest", "heir"}
_A_EXCEPTIONS = {"one", "unicorn", "uniform", "unicycle", "university", "used", "useful", "european", "ukulele"}


class Token(NamedTuple):
    """A word of a text: lowercase, with its range of characters."""

    word: str
    start: int
    end: int


def tokenize(text: str) -> list[Token]:
    """Return the words and numbers of a text."""
    return [Token(match[0].lower(), match.start(), match.end()) for match in _WORD.finditer(text)]


def words_of(text: str) -> list[str]:
    """Return the words of `tokenize` without their positions."""
    return _WORD.findall(text.lower())


def word_set(text: str) -> frozenset[str]:
    """Return the words of a list that is written as one text."""
    return frozenset(text.split())


def article(word: str) -> str:
    """Return the indefinite article of a word."""
    first = word.split()[0]
    starts_with_vowel = (first[0] in _VOWELS or first in _AN_EXCEPTIONS) and first not in _A_EXCEPTIONS
    return "an" if starts_with_vowel else "a"


def _ends_in_consonant_y(word: str) -> bool:
    return word.endswith("y") and word[-2:-1] not in tuple(_VOWELS)


def _add_s(word: str) -> str:
    if _ends_in_consonant_y(word):
        return f"{word[:-1]}ies"
    return word + ("es" if word.endswith(("s", "x", "z", "ch", "sh", "o")) else "s")


def _is_doubled(word: str) -> bool:
    """Check whether a verb doubles its last consonant: one syllable that ends in consonant, vowel, consonant."""
    return re.fullmatch(r"(?:[^aeiou]*|qu)[aeiou][^aeiouwxy]", word) is not None


def _stem_before_vowel(verb: str) -> str:
    if verb.endswith("e") and not verb.endswith(("ee", "ye", "oe")):
        return verb[:-1]
    return verb + verb[-1] if _is_doubled(verb) else verb


def plural(noun: str, irregular: Mapping[str, str]) -> str:
    """Return the plural of a noun, whose last word is inflected: `living rooms`."""
    head, _, last = noun.rpartition(" ")
    inflected = irregular.get(last) or _add_s(last)
    return f"{head} {inflected}".strip()


def conjugate(verb: str, irregular: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """Return the forms of a verb by name: base, third (person), gerund, past, participle. Its first word is inflected.

    Args:
        verb: Base form, such as `turn on`.
        irregular: Past and participle of irregular verbs.
    """
    first, space, rest = verb.partition(" ")
    gerund = f"{first[:-2]}ying" if first.endswith("ie") else f"{_stem_before_vowel(first)}ing"
    past = f"{first[:-1]}ied" if _ends_in_consonant_y(first) else f"{_stem_before_vowel(first)}ed"
    past, participle = irregular.get(first, (past, past))
    forms = {"base": first, "third": _add_s(first), "gerund": gerund, "past": past, "participle": participle}
    return {name: f"{form}{space}{rest}" for name, form in forms.items()}


@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """Return a crude stem, so that most inflected forms of a regular word are equal."""
    for suffix, replacement in (("ies", "y"), ("sses", "ss"), ("ing", ""), ("ed", ""), ("es", ""), ("s", "")):
        if word.endswith(suffix) and not word.endswith("ss") and len(word) - len(suffix) >= 3:
            word = word[: -len(suffix)] + replacement
            break
    if len(word) > 3 and word[-1] == word[-2] and word[-1] not in "lsz":
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word[-1] == "e" else word
