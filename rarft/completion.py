"""Parser and renderer of completions.

A completion is `<think>..</think> <answer>..</answer> <correction>..</correction>`. Its answer is either a segment,
written `12.54 to 17.83`, or a refusal with its reason. Rewards and evaluation both use `parse_completion`, so they
always agree on the content of a completion.
"""

import re
from collections.abc import Iterable

import msgspec

from rarft.answers import Outcome, parse_answer
from rarft.segments import Segment

NO_CORRECTION = "NIL"

_BLOCK = r"\s*+<{0}>(?:[^<]++|<(?!/?(?:think|answer|correction)>))*+</{0}>\s*+"
_WELL_FORMED = re.compile("".join(map(_BLOCK.format, ("think", "answer", "correction"))))


class Completion(msgspec.Struct, frozen=True, gc=False):
    """A parsed completion.

    Attributes:
        answer: Stripped text of the last `<answer>` block; None without one.
        correction: Stripped text of the last `<correction>` block; None without one.
        outcome: "segment", "refusal" or "unreadable" (D2); None for a missing or blank answer.
        segments: Timestamps of the answer in its order, in seconds and unchecked: an end may precede its start.
        well_formed: Exactly the three blocks in order, each tag once, with only whitespace around them (decision D1).
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


def _last_block(text: str, start_tag: str, end_tag: str) -> str | None:
    """Return the stripped text of the last complete block, in linear time."""
    end = text.rfind(end_tag)
    start = text.rfind(start_tag, 0, end) if end >= 0 else -1
    return text[start + len(start_tag) : end].strip() if start >= 0 else None


def answer_start(text: str) -> int | None:
    """Return the index after the `<answer>` that starts the answer; after the last one if no block is complete."""
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    start = start if start >= 0 else text.rfind("<answer>")
    return start + len("<answer>") if start >= 0 else None


def parse_completion(text: str) -> Completion:
    """Parse any text as a completion, in time linear in its length."""
    answer = _last_block(text, "<answer>", "</answer>")
    outcome, segments = parse_answer(answer or "")
    return Completion(
        answer=answer,
        correction=_last_block(text, "<correction>", "</correction>"),
        outcome=outcome,
        segments=tuple(segments),
        well_formed=_WELL_FORMED.fullmatch(text) is not None,
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
