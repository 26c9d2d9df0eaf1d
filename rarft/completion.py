"""Parse and render completions: three tags, and the one definition of "has a timestamp".

A completion is `<think>..</think> <answer>..</answer> <correction>..</correction>`. Its answer is either a
segment, written `12.54 to 17.83`, or a refusal with its reason. Rewards and evaluation both read completions
through `parse_completion`, so that they can never disagree on what was said (decision D2).
"""

import re
from dataclasses import dataclass

from rarft.segments import Segment

NO_CORRECTION = "NIL"

# Bounded digits and white space, and no digit right before: matching stays linear in the length of the text.
_NUMBER = r"\d{1,32}(?:\.\d{1,32})?"
TIMESTAMP = re.compile(rf"(?<!\d)({_NUMBER})\s{{1,16}}to\s{{1,16}}({_NUMBER})")

_TAGS = ("think", "answer", "correction")
_TAG_MARKS = tuple(mark for tag in _TAGS for mark in (f"<{tag}>", f"</{tag}>"))


@dataclass(frozen=True, slots=True)
class Completion:
    """A parsed completion.

    Attributes:
        answer: text inside the last `<answer>` block, stripped; None where there is none.
        correction: text inside the last `<correction>` block, stripped; None where there is none.
        segment: the first timestamp of the answer, in seconds; None where it has none.
        well_formed: the three blocks, each tag exactly once, in order, nothing but white space around them.
    """

    answer: str | None
    correction: str | None
    segment: Segment | None
    well_formed: bool

    @property
    def refuses(self) -> bool:
        """Whether it answers without a timestamp. A missing or blank answer is no refusal."""
        return bool(self.answer) and self.segment is None

    @property
    def corrected_query(self) -> str | None:
        """The correction where it says something: not missing, not blank, not `NIL`."""
        return self.correction if self.correction and self.correction.upper() != NO_CORRECTION else None


def find_segment(text: str) -> Segment | None:
    """The first `NUMBER to NUMBER` of the text, in seconds, as it stands there (it may be reversed)."""
    match = TIMESTAMP.search(text) if "to" in text else None  # most refusals are told apart by this alone
    return (float(match[1]), float(match[2])) if match else None


def _last_block(text: str, tag: str) -> str | None:
    """Text of the last complete `<tag>..</tag>`, found from the end so that the cost stays linear."""
    end = text.rfind(f"</{tag}>")
    start = text.rfind(f"<{tag}>", 0, end) if end >= 0 else -1
    return text[start + len(tag) + 2 : end].strip() if start >= 0 else None


def _is_well_formed(text: str) -> bool:
    """Each tag exactly once, in order, and only white space outside the blocks (decision D1)."""
    text = text.strip()
    if any(text.count(mark) != 1 for mark in _TAG_MARKS):
        return False
    starts = [text.index(f"<{tag}>") for tag in _TAGS]
    ends = [text.index(f"</{tag}>") + len(tag) + 3 for tag in _TAGS]
    in_order = all(start < end for start, end in zip(starts, ends, strict=True))
    gaps = [text[: starts[0]], text[ends[0] : starts[1]], text[ends[1] : starts[2]], text[ends[2] :]]
    return in_order and ends[0] <= starts[1] and ends[1] <= starts[2] and not any(gap.strip() for gap in gaps)


def parse_completion(completion: str) -> Completion:
    """Read a completion. Any text is accepted; the time is linear in its length."""
    answer = _last_block(completion, "answer")
    return Completion(
        answer=answer,
        correction=_last_block(completion, "correction"),
        segment=find_segment(answer) if answer else None,
        well_formed=_is_well_formed(completion),
    )


def render_completion(think: str, answer: str, correction: str = NO_CORRECTION) -> str:
    """A well-formed completion of the three parts."""
    return f"<think>{think}</think>\n<answer>{answer}</answer>\n<correction>{correction}</correction>"


def format_segment(segment: Segment) -> str:
    """A segment as completions write it: `12.54 to 17.83`."""
    return f"{segment[0]:.2f} to {segment[1]:.2f}"
