"""Parser and renderer of completions, with the one definition of "has a timestamp".

A completion is `<think>..</think> <answer>..</answer> <correction>..</correction>`. Its answer is either a segment,
written `12.54 to 17.83`, or a refusal with its reason. Rewards and evaluation both use `parse_completion`, so they
always agree on the content of a completion (decision D2).
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rarft.segments import Segment

NO_CORRECTION = "NIL"

# Bounded repetitions and no digit before the match keep matching linear in the length of the text.
_NUMBER = r"\d{1,32}(?:\.\d{1,32})?"
TIMESTAMP = re.compile(rf"(?<!\d)({_NUMBER})\s{{1,16}}to\s{{1,16}}({_NUMBER})")

_TAG = re.compile(r"(</?(?:think|answer|correction)>)")
_TAGS_IN_ORDER = ["<think>", "</think>", "<answer>", "</answer>", "<correction>", "</correction>"]


@dataclass(frozen=True, slots=True)
class Completion:
    """A parsed completion.

    Attributes:
        answer: Stripped text of the last `<answer>` block; None without one.
        correction: Stripped text of the last `<correction>` block; None without one.
        segments: Timestamps of the answer in its order, in seconds and unchecked: an end may precede its start.
        well_formed: Exactly the three blocks in order, each tag once, with only whitespace around them.
    """

    answer: str | None
    correction: str | None
    segments: tuple[Segment, ...]
    well_formed: bool

    @property
    def segment(self) -> Segment | None:
        """Return the first timestamp of the answer; None without one."""
        return self.segments[0] if self.segments else None

    @property
    def refuses(self) -> bool:
        """Check whether the answer has no timestamp. A missing or blank answer does not count as a refusal."""
        return bool(self.answer) and not self.segments

    @property
    def corrected_query(self) -> str | None:
        """Return the correction; None if it is missing, blank or `NIL`."""
        return self.correction if self.correction and self.correction.upper() != NO_CORRECTION else None


def find_segments(text: str) -> list[Segment]:
    """Return each `NUMBER to NUMBER` of a text, in seconds and unchecked: an end may precede its start."""
    return [(float(match[1]), float(match[2])) for match in TIMESTAMP.finditer(text)]


def _extract_tag(text: str, tag: str) -> str | None:
    """Return the stripped text of the last complete `<tag>..</tag>`, in linear time."""
    end = text.rfind(f"</{tag}>")
    start = text.rfind(f"<{tag}>", 0, end) if end >= 0 else -1
    return text[start + len(tag) + 2 : end].strip() if start >= 0 else None


def _is_well_formed(text: str) -> bool:
    """Check that each tag occurs once, in order, with only whitespace outside the blocks (decision D1)."""
    parts = _TAG.split(text)
    return parts[1::2] == _TAGS_IN_ORDER and not any(map(str.strip, parts[::4]))


def parse_completion(text: str) -> Completion:
    """Parse any text as a completion, in time linear in its length."""
    answer = _extract_tag(text, "answer")
    return Completion(
        answer=answer,
        correction=_extract_tag(text, "correction"),
        segments=tuple(find_segments(answer or "")),
        well_formed=_is_well_formed(text),
    )


def render_completion(think: str, answer: str, correction: str = NO_CORRECTION) -> str:
    """Return a well-formed completion."""
    return f"<think>{think}</think>\n<answer>{answer}</answer>\n<correction>{correction}</correction>"


def format_segment(segment: Segment) -> str:
    """Format a segment as completions write it: `12.54 to 17.83`."""
    return f"{segment[0]:.2f} to {segment[1]:.2f}"


def format_segments(segments: Iterable[Segment]) -> str:
    """Format segments as an answer writes them: `12.54 to 17.83, 20.00 to 24.50`."""
    return ", ".join(map(format_segment, segments))
