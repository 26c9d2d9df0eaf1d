"""Contexts in which a word can be swapped: the words next to it must show that it has the part of its group."""

from collections.abc import Sequence

from rarft.negatives.english import word_set
from rarft.negatives.lexicon import Form, Group, Lexicon

END = "end"
DETERMINERS = word_set("a an the this that these those some another any their his her its my each every both")
_SUBJECTS = word_set(
    """
    person persons people someone somebody man woman boy girl lady guy child kid they he she who and then also it
    men women children dog cat ring square cross circle
    """
)
_AUXILIARIES = word_set("is are was were be been being am")
_PERFECT = word_set("has have had having")
_BEFORE_GERUND = word_set(
    """
    begin begins began beginning start starts started starting stop stops stopped continue continues continued
    keep keeps kept seen while by proceeds finishes decides
    """
)
_BEFORE_BASE = word_set("to will would can could they people and then men women children")
_PREPOSITIONS = word_set(
    """
    of in on at to into onto from by with without for about over under behind near across against toward towards
    through around above below inside outside off up down out past along beside between
    """
)
# Words that may follow a noun without forming a compound with it.
_AFTER_NOUN = (
    _PREPOSITIONS
    | DETERMINERS
    | _AUXILIARIES
    | _PERFECT
    | word_set(
        """
    end and or but then while when who which that as so because if where they he she again back away there here
    next together quickly slowly very instead also before after using
    """
    )
)
_AFTER_NUMBER = word_set("people men women children")


def _is_adverb(word: str) -> bool:
    return word.endswith("ly")


class Contexts:
    """Checks of the context of a form, with the forms of a lexicon."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._groups = lexicon.groups
        forms = {name: self._words(lexicon, name) for name in ("noun", "mass", "verb", "adjective", "number")}
        self._nouns = forms["noun"] | forms["mass"]
        self._verbs = forms["verb"]
        self._finite_verbs = frozenset(word for word in self._verbs if not word.endswith("ing"))
        self._adjectives = forms["adjective"] | forms["number"]
        self._next: dict[str, frozenset[str]] = {}
        for name, group in lexicon.groups.items():
            words = {group.next} if isinstance(group.next, str) else set(group.next)
            self._next[name] = frozenset(words | (DETERMINERS if "determiner" in words else set()))
        phrases = {name: [tuple(each.split()) for each in group.unless] for name, group in lexicon.groups.items()}
        self._unless_words = {
            name: frozenset(each[0] for each in unless if len(each) == 1) for name, unless in phrases.items()
        }
        self._unless_phrases = {
            name: [f" {' '.join(each)} " for each in unless if len(each) > 1] for name, unless in phrases.items()
        }

    @staticmethod
    def _words(lexicon: Lexicon, part: str) -> frozenset[str]:
        return frozenset(
            words[0]
            for words, forms in lexicon.forms.items()
            if len(words) == 1 and any(lexicon.groups[form.group].part == part for form in forms)
        )

    def allows(self, words: Sequence[str], start: int, end: int, form: Form) -> bool:
        """Check whether the form at `words[start:end]` can be swapped.

        Args:
            words: All words of the query, lowercase.
            start: Index of the form's first word.
            end: Index after its last word.
            form: The form.
        """
        group: Group = self._groups[form.group]
        before = words[start - 1] if start else ""
        after = words[end] if end < len(words) else END
        if (required := self._next[form.group]) and after not in required:
            return False
        if not self._unless_words[form.group].isdisjoint(words):
            return False
        if phrases := self._unless_phrases[form.group]:
            text = f" {' '.join(words)} "
            if any(phrase in text for phrase in phrases):
                return False
        check = getattr(self, f"_allows_{group.part}")
        return bool(check(before, after, form))

    def _allows_noun(self, before: str, after: str, form: Form) -> bool:
        if before in self._nouns or not (after in _AFTER_NOUN or after in self._finite_verbs or _is_adverb(after)):
            return False
        introduces = before in DETERMINERS or before in self._adjectives
        if form.inflection == "plural":
            return introduces or before in _PREPOSITIONS or before in self._verbs
        # After a subject, the word is probably a verb: "a person books a flight".
        return introduces or before in _PREPOSITIONS or (before in self._verbs and before not in _SUBJECTS)

    def _allows_mass(self, before: str, after: str, form: Form) -> bool:
        if before in {"a", "an", "to"} or before in self._nouns or before in _SUBJECTS:
            return False
        return after in _AFTER_NOUN or _is_adverb(after)

    def _allows_verb(self, before: str, after: str, form: Form) -> bool:
        is_subject = before in _SUBJECTS or _is_adverb(before)
        if form.inflection == "base":
            return before in _BEFORE_BASE or before in {"person", "persons"}
        if form.inflection == "third":
            return is_subject
        if form.inflection == "gerund":
            return is_subject or not before or before in _AUXILIARIES or before in _BEFORE_GERUND
        if form.inflection == "participle":
            return before in _PERFECT or before in _AUXILIARIES
        return is_subject

    def _allows_adjective(self, before: str, after: str, form: Form) -> bool:
        if before in _AUXILIARIES:
            return after in _AFTER_NOUN
        return after not in _AFTER_NOUN and after != END and not after[0].isdigit()

    def _allows_number(self, before: str, after: str, form: Form) -> bool:
        return after in _AFTER_NUMBER or (after.endswith("s") and after not in _AFTER_NOUN)

    def _allows_adverb(self, before: str, after: str, form: Form) -> bool:
        return True

    def _allows_phrase(self, before: str, after: str, form: Form) -> bool:
        return True
