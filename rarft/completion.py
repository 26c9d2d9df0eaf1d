"""Parser and renderer of completions.

A completion is `<think>..</think> <answer>..</answer> <correction>..</correction>`. Its answer is either a segment,
written `12.54 to 17.83`, or a refusal with its reason. Rewards and evaluation both use `parse_completion`, so they
always agree on the content of a completion.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from rarft.answers import Outcome, parse_answer
from rarft.segments import Segment

NO_CORRECTION = "NIL"

_TAG = re.compile(r"(</?(?:think|answer|correction)>)")
_TAGS_IN_ORDER = ["<think>", "</think>", "<answer>", "</answer>", "<correction>", "</correction>"]


@dataclass(frozen=True, slots=True)
class Completion:
    """A parsed completion.

    Attributes:
        answer: Stripped text of the last `<answer>` block; None without one.
        correction: Stripped text of the last `<correction>` block; None without one.
        outcome: "segment", "refusal" or "unreadable" (D2); None for a missing or blank answer.
        segments: Timestamps of the answer in its order, in seconds and unchecked: an end may precede its start.
        well_formed: Exactly the three blocks in order, each tag once, with only whitespace around them.
    """

    answer: str | None
    correction: str | None
    outcome: Outcome | None
    segments: tuple[Segment, ...]
    well_formed: bool

    @property
    def segment(self) -> Segment | None:
        """Return the first timestamp of the answer; None without one."""
        return self.segments[0] if self.segments else None

    @property
    def refuses(self) -> bool:
        """Check whether the answer is a refusal."""
        return self.outcome == "refusal"

    @property
    def is_readable(self) -> bool:
        """Check whether the answer is a segment or a refusal: not missing, blank or unreadable."""
        return self.outcome in ("segment", "refusal")

    @property
    def corrected_query(self) -> str | None:
        """Return the correction; None if it is missing, blank or `NIL`."""
        return self.correction if self.correction and self.correction.upper() != NO_CORRECTION else None


def _extract_tag(text: str, tag: str) -> str | None:
    """Return the stripped text of the last complete `<tag>..</tag>`, in linear time."""
    end = text.rfind(f"</{tag}>")
    start = text.rfind(f"<{tag}>", 0, end) if end >= 0 else -1
    return text[start + len(tag) + 2 : end].strip() if start >= 0 else None


def answer_start(text: str) -> int | None:
    """Return the index after the `<answer>` that starts the answer; after the last one if no block is complete."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    start = start if start >= 0 else text.rfind("<answer>")
    return start + len("<answer>") if start >= 0 else None


def _is_well_formed(text: str) -> bool:
    """Check that each tag occurs once, in order, with only whitespace outside the blocks (decision D1)."""
    parts = _TAG.split(text)
    return parts[1::2] == _TAGS_IN_ORDER and not any(map(str.strip, parts[::4]))


def parse_completion(text: str) -> Completion:
    """Parse any text as a completion, in time linear in its length."""
    answer = _extract_tag(text, "answer")
    outcome, segments = parse_answer(answer or "")
    return Completion(
        answer=answer,
        correction=_extract_tag(text, "correction"),
        outcome=outcome,
        segments=tuple(segments),
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
