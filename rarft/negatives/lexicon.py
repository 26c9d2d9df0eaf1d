"""Lexicon of swappable words: its file, its word forms, and the words of a text that two texts can disagree in.

A group lists words that can replace one another, and the contexts in which they can. No tagger is used: a word is
swapped only if the words next to it show what it is (`contexts.py`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import yaml

from rarft.annotations.schema import CATEGORIES
from rarft.errors import InputError
from rarft.negatives.english import conjugate, plural, stem, word_set, words_of

_MAX_WORDS = 4  # of an entry
_PACKAGED = "lexicon.yaml"
_Words = Annotated[list[str | list[str]], msgspec.Meta(min_length=2)]
Part = Literal["noun", "mass", "verb", "adjective", "adverb", "number", "phrase"]


class Group(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Words that can replace one another.

    Attributes:
        category: Mismatch category of a swap.
        part: Part of speech, which decides on inflection and context.
        words: A word, or a list of synonyms, which do not replace one another.
        next: Words of which one must follow; `end` for the end of the query, `determiner` for any determiner.
        unless: Words and phrases; none of them may occur in the query.
        never: Pairs of words, by the first synonym, that do not replace each other.
        new_only: Words, by the first synonym, that replace others and are not replaced.
    """

    category: str
    part: Part
    words: _Words
    next: str | list[str] = []
    unless: list[str] = []
    never: list[tuple[str, str]] = []
    new_only: list[str] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    groups: dict[str, Group]
    synonyms: list[list[str]] = []
    generic: list[str] = []
    irregular_nouns: dict[str, str] = {}
    irregular_verbs: dict[str, tuple[str, str]] = {}


@dataclass(frozen=True, slots=True)
class Form:
    """One inflected word of a group, or several; `sense` is the first of its synonyms."""

    text: str
    words: tuple[str, ...]
    inflection: str
    sense: str
    group: str


# Words that do not distinguish two moments.
_IGNORED = word_set(
    """
    a an the this that these those some any another other one ones each every few several many much more most of
    in on at to into onto from by with without for about as and or but then while when who which what there here
    it its he she they them their theirs his her hers him himself herself themself themselves self is are was were
    be been being am do does did doing has have had having will would can could s t not no so very just also too
    up down out off over around back away through again person people someone somebody man's person's something
    somewhere thing things item items object objects seen appear appearing begin begins beginning starting put
    puts get gets getting go goes going come comes coming be use using used next near front side top inside
    outside try trying tries continue continues proceed proceeds video clip second where because how than if
    """
)


def _sizes(phrases: Iterable[tuple[str, ...]]) -> dict[str, list[int]]:
    """Return the lengths of the phrases that begin with a word, the longest first."""
    sizes: dict[str, set[int]] = defaultdict(set)
    for phrase in phrases:
        sizes[phrase[0]].add(len(phrase))
    return {word: sorted(found, reverse=True) for word, found in sizes.items()}


class Lexicon:
    """Word forms of all groups, and canonical words of texts.

    Attributes:
        groups: Groups by name.
        forms: Forms by their words.
        form_sizes: Numbers of words of the forms that begin with a word, the longest first.
    """

    def __init__(self, file: _File) -> None:
        self.groups = file.groups
        self.forms: dict[tuple[str, ...], list[Form]] = defaultdict(list)
        self._by_sense: dict[tuple[str, str], list[Form]] = defaultdict(list)
        self._senses: dict[str, list[str]] = {}
        self._canonical: dict[tuple[str, ...], set[str]] = defaultdict(set)
        for name, group in file.groups.items():
            self._senses[name] = []
            for entry in group.words:
                synonyms = [entry] if isinstance(entry, str) else entry
                self._senses[name].append(synonyms[0])
                for word in synonyms:
                    self._add(word, synonyms[0], name, file)
        for words in file.synonyms:
            for word in words:
                verb_forms = conjugate(word, file.irregular_verbs).values()
                for text in {word, plural(word, file.irregular_nouns), *verb_forms}:
                    self._canonical[tuple(text.split())].add(f"={words[0]}")
        self._replacements: dict[tuple[str, str, str], list[Form]] = {}
        self._text_words: dict[str, frozenset[str]] = {}
        self._canonical_sizes, self.form_sizes = _sizes(self._canonical), _sizes(self.forms)
        self._generic: frozenset[str] = frozenset()
        self._never = {
            (name, *pair)
            for name, group in file.groups.items()
            for first, second in group.never
            for pair in ((first, second), (second, first))
        }

        generic = [word for phrase in file.generic for word in phrase.split()]
        generic += [word for words, forms in self.forms.items() for word in words if self._is_adverb(forms)]
        self._generic = self.content_words(generic)

    def _is_adverb(self, forms: Iterable[Form]) -> bool:
        return any(self.groups[form.group].part == "adverb" for form in forms)

    def _add(self, word: str, sense: str, name: str, file: _File) -> None:
        part = file.groups[name].part
        if part == "noun":
            forms = {"singular": word, "plural": plural(word, file.irregular_nouns)}
        elif part == "verb":
            forms = conjugate(word, file.irregular_verbs)
        else:
            forms = {"base": word}
        for inflection, text in forms.items():
            form = Form(text, tuple(text.split()), inflection, sense, name)
            self.forms[form.words].append(form)
            self._by_sense[name, sense].append(form)
        for text in {*forms.values(), word}:
            self._canonical[tuple(text.split())].add(f"={sense}")

    def replacements(self, form: Form) -> list[Form]:
        """Return the forms of other senses of the group that have the same inflection."""
        key = (form.group, form.sense, form.inflection)
        if (found := self._replacements.get(key)) is None:
            found = self._replacements[key] = list(self._find_replacements(form))
        return found

    def _find_replacements(self, form: Form) -> Iterator[Form]:
        if form.sense in self.groups[form.group].new_only:
            return
        for sense in self._senses[form.group]:
            if sense != form.sense and (form.group, form.sense, sense) not in self._never:
                for other in self._by_sense[form.group, sense]:
                    if other.inflection == form.inflection:
                        yield other

    def categories(self, words: Iterable[str]) -> list[str]:
        """Return the mismatch categories of words, as far as the groups that contain a word agree on one."""
        found: dict[str, None] = {}
        for word in words:
            categories = {self.groups[form.group].category for form in self.forms.get((word,), [])}
            if len(categories) == 1:
                found.setdefault(categories.pop())
        return list(found)

    def content_words(self, words: Sequence[str]) -> frozenset[str]:
        """Return the words that distinguish a text from another one; inflected forms and synonyms are equal."""
        found: set[str] = set()
        position = 0
        while position < len(words):
            word = words[position]
            for size in self._canonical_sizes.get(word, ()):
                end = position + size
                if end <= len(words) and (names := self._canonical.get(tuple(words[position:end]))):
                    found |= names
                    position = end
                    break
            else:
                if word not in _IGNORED:
                    found.add(stem(word))
                position += 1
        return frozenset(found)

    def unnamed(self, words: frozenset[str], video_words: frozenset[str]) -> frozenset[str]:
        """Return the content words that no text about the video names, without those that need no caption."""
        return words - video_words - self._generic

    def text_words(self, text: str) -> frozenset[str]:
        """Return the content words of a text; they are kept, because texts are asked for several times."""
        if (found := self._text_words.get(text)) is None:
            found = self._text_words[text] = self.content_words(words_of(text))
        return found


def _check(file: _File) -> None:
    for name, group in file.groups.items():
        if group.category not in CATEGORIES:
            raise ValueError(f"{name}: unknown category {group.category}; use one of {', '.join(sorted(CATEGORIES))}")
        senses = [entry if isinstance(entry, str) else entry[0] for entry in group.words if entry]
        for word in (word for entry in group.words for word in ([entry] if isinstance(entry, str) else entry)):
            if word != word.lower().strip() or not 1 <= len(word.split()) <= _MAX_WORDS:
                raise ValueError(f"{name}: {word!r} must be 1 to {_MAX_WORDS} lowercase words")
        if len(senses) != len(group.words) or len(set(senses)) != len(senses):
            raise ValueError(f"{name}: an entry is empty or repeated")
        if unknown := {*group.new_only, *(word for pair in group.never for word in pair)} - set(senses):
            raise ValueError(f"{name}: never or new_only: {min(unknown)} is not the first word of an entry")


def parse_lexicon(text: str, path: str) -> Lexicon:
    """Parse the YAML of a lexicon.

    Raises:
        InputError: It is invalid.
    """
    try:
        # Every scalar is a text: YAML would read the words on, off and no as booleans.
        file = msgspec.convert(yaml.load(text, yaml.BaseLoader), _File)
        if not file.groups:
            raise ValueError("contains no groups")
        _check(file)
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a valid lexicon ({error}); see docs/data.md") from error
    return Lexicon(file)


def load_lexicon(path: Path) -> Lexicon:
    """Read a lexicon from a file."""
    try:
        return parse_lexicon(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid UTF-8 ({error}); convert the file") from error


@cache
def packaged_lexicon() -> Lexicon:
    """Return the packaged lexicon, read once."""
    return parse_lexicon((resources.files("rarft.negatives") / _PACKAGED).read_text(encoding="utf-8"), _PACKAGED)
