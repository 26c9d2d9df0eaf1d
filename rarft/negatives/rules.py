"""Refusable queries by whole-word swaps: "puts the glass on the table" becomes "puts the bottle on the table".

A new word must not be named, in any form or by a synonym, in any text about the video. It must occur in the answerable
queries of the data, and swaps are chosen so that each word is inserted about as often as it is removed. A model could
otherwise learn from the words alone which queries to refuse.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from rarft.annotations.parsing import normalize_text
from rarft.annotations.schema import Difficulty
from rarft.negatives.contexts import Contexts
from rarft.negatives.english import Token, article, tokenize, words_of
from rarft.negatives.lexicon import Form, Lexicon
from rarft.negatives.negative import Negative

_DIFFICULTY: dict[int, Difficulty] = {1: "hard", 2: "medium", 3: "easy"}  # by number of swaps
_MAX_IMBALANCE = 0.3  # share of a word's occurrences by which it may be inserted or removed more often
_WEIGHTS = (0.6, 0.25, 0.15)  # of 1, 2 and 3 swaps, as far as a query allows them


class Swap(NamedTuple):
    """Replacement of a range of a query's words."""

    first: int  # index of the first word
    last: int  # index after the last word
    old: Form
    new: Form


def find_forms(words: Sequence[str], lexicon: Lexicon, contexts: Contexts) -> list[tuple[int, int, Form]]:
    """Return all forms of a query that can be swapped, each with the index of its first word and after its last."""
    found = []
    position = 0
    while position < len(words):
        for size in lexicon.form_sizes.get(words[position], ()):
            # Without their type, which the longest form at a position decides: "cell phone" is not "phone".
            end = position + size
            if end <= len(words) and (forms := lexicon.forms.get(tuple(words[position:end]))):
                found += [(position, end, form) for form in forms if contexts.allows(words, position, end, form)]
                position = end
                break
        else:
            position += 1
    return found


def find_swaps(words: Sequence[str], lexicon: Lexicon, contexts: Contexts) -> list[Swap]:
    """Return all swaps that a query allows, by position."""
    forms = find_forms(words, lexicon, contexts)
    return [Swap(first, last, old, new) for first, last, old in forms for new in lexicon.replacements(old)]


def apply_swaps(text: str, tokens: Sequence[Token], swaps: Iterable[Swap]) -> str:
    """Return the text with words replaced; capitals are kept, and "a" and "an" agree with the new words."""
    for swap in sorted(swaps, key=lambda swap: -swap.first):
        start, end = tokens[swap.first].start, tokens[swap.last - 1].end
        new = swap.new.text
        if text[start].isupper():
            new = new[0].upper() + new[1:]
        text = text[:start] + new + text[end:]
        if swap.first and (before := tokens[swap.first - 1]).word in {"a", "an"}:
            fixed = article(swap.new.text)
            fixed = fixed.capitalize() if text[before.start].isupper() else fixed
            text = text[: before.start] + fixed + text[before.end :]
    return text


def _reason(source: str, swaps: Sequence[Swap]) -> str:
    differences = " and ".join(f'"{swap.old.text}" instead of "{swap.new.text}"' for swap in swaps)
    return f'No moment matches the query: the video shows "{source.rstrip(" .")}", with {differences}.'


class RuleMaker:
    """Makes queries by swaps, with the balance of all words so far.

    Attributes:
        unswappable: Number of requests without any possible swap.
    """

    def __init__(self, queries: Iterable[str], lexicon: Lexicon, seed: int, per_query: float = 1.0) -> None:
        """
        Args:
            queries: All answerable queries of the data.
            lexicon: Swappable words.
            seed: Random seed.
            per_query: Expected number of requests per answerable query.
        """
        self._max_imbalance = _MAX_IMBALANCE * max(1.0, per_query)
        self._lexicon, self._contexts, self._seed = lexicon, Contexts(lexicon), seed
        self._counts: Counter[str] = Counter(word for query in queries for word in words_of(query))
        self._inserted: Counter[str] = Counter()  # less what was removed
        self.unswappable = 0

    def _may_change(self, form: Form, sign: int) -> bool:
        """Check that the words of a form occur in the data, and are not inserted (1) or removed (-1) too often."""
        for word in form.words:
            count = self._counts.get(word, 0)
            if not count or sign * self._inserted.get(word, 0) + 1 > max(1.0, self._max_imbalance * count):
                return False
        return True

    def _find_swaps(self, words: Sequence[str], video_words: frozenset[str]) -> list[Swap]:
        """Return the swaps that the query, the video and the balance of words allow."""
        text_words = self._lexicon.text_words
        return [
            Swap(first, last, old, new)
            for first, last, old in find_forms(words, self._lexicon, self._contexts)
            if self._may_change(old, -1)
            for new in self._lexicon.replacements(old)
            if video_words.isdisjoint(text_words(new.text)) and self._may_change(new, 1)
        ]

    def _imbalance(self, swap: Swap) -> float:
        """Return how much more often the new words were inserted, and the old ones removed, per occurrence."""
        new = max(self._inserted[word] / self._counts[word] for word in swap.new.words)
        old = min(self._inserted[word] / self._counts[word] for word in swap.old.words)
        return new - old

    def make(self, source: str, video_words: frozenset[str], taken: set[str], number: int) -> Negative | None:
        """Return a query made from an answerable one; None if no swap is possible.

        Args:
            source: The answerable query.
            video_words: Content words of all texts about the video.
            taken: Normalized texts that the new query must differ from.
            number: Number of the request, which decides on random choices.
        """
        tokens = tokenize(source)
        words = [token.word for token in tokens]
        rng = Random(self._seed * 1_000_003 + number)
        wanted = rng.choices(list(_DIFFICULTY), _WEIGHTS)[0]
        swaps = self._find_swaps(words, video_words)
        rng.shuffle(swaps)
        chosen: list[Swap] = []
        query = source
        for swap in sorted(swaps, key=self._imbalance):
            if len(chosen) == wanted:
                break
            if any(swap.first < other.last and other.first < swap.last for other in chosen):
                continue
            changed = apply_swaps(source, tokens, [*chosen, swap])
            if normalize_text(changed) not in taken:
                chosen.append(swap)
                query = changed
        if not chosen:
            self.unswappable += 1
            return None
        chosen.sort(key=lambda swap: swap.first)
        for swap in chosen:
            self._inserted.update(swap.new.words)
            self._inserted.subtract(swap.old.words)
        categories = dict.fromkeys(self._lexicon.groups[swap.new.group].category for swap in chosen)
        return Negative(
            kind="rules",
            query=query,
            source=source,
            difficulty=_DIFFICULTY[len(chosen)],
            categories=list(categories),
            reason=_reason(source, chosen),
            detail={"swaps": [[swap.old.text, swap.new.text] for swap in chosen]},
        )
