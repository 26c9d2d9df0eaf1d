"""What a completion looks like: its prompt, its three tags, and the one definition of "has a timestamp".

A completion is `<think>..</think> <answer>..</answer> <correction>..</correction>`. Its answer is either a
segment, written `12.54 to 17.83`, or a refusal with its reason. Rewards and evaluation both read completions
through `parse`, so that they can never disagree on what was said (decision D2).
"""

import functools
import re
from dataclasses import dataclass
from pathlib import Path

from rarft.errors import InputError
from rarft.segments import Segment

NO_CORRECTION = "NIL"

# Bounded digits and white space, and no digit right before: matching stays linear in the length of the text.
_NUMBER = r"\d{1,32}(?:\.\d{1,32})?"
TIMESTAMP = re.compile(rf"(?<!\d)({_NUMBER})\s{{1,16}}to\s{{1,16}}({_NUMBER})")

_TAGS = ("think", "answer", "correction")
_TAG_MARKS = tuple(mark for tag in _TAGS for mark in (f"<{tag}>", f"</{tag}>"))


@dataclass(frozen=True, slots=True)
class Response:
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


def parse(completion: str) -> Response:
    """Read a completion. Any text is accepted; the time is linear in its length."""
    answer = _last_block(completion, "answer")
    return Response(
        answer=answer,
        correction=_last_block(completion, "correction"),
        segment=find_segment(answer) if answer else None,
        well_formed=_is_well_formed(completion),
    )


def render(think: str, answer: str, correction: str = NO_CORRECTION) -> str:
    """A well-formed completion of the three parts."""
    return f"<think>{think}</think>\n<answer>{answer}</answer>\n<correction>{correction}</correction>"


def format_segment(segment: Segment) -> str:
    """A segment as completions write it: `12.54 to 17.83`."""
    return f"{segment[0]:.2f} to {segment[1]:.2f}"


_REPLY_FORMAT = (
    "The query may describe something that never happens in the video. Then say so instead of guessing.\n"
    "Reply with exactly three blocks, in this order:\n"
    "<think>what you see that bears on the query; quote times as "
    "<timestep>xx.xx to xx.xx</timestep></think>\n"
    "<answer>the moment in seconds, such as 12.54 to 17.83; or, if there is none, why the query does not "
    "fit the video, without any times</answer>\n"
    "<correction>NIL if the query fits; otherwise the query rewritten so that it does</correction>"
)
# The wording is ours; the training guide names the template without giving it (decision D16).
PROMPTS = {
    "rarft": (
        'The video lasts {duration} seconds.{crop} Find the moment that this query describes: "{query}".\n'
        + _REPLY_FORMAT
    ),
    # Time-R1-7B was trained with the text before the video and without the duration.
    "rarft-text-first": 'Find the moment of the video that this query describes: "{query}".{crop}\n'
    + _REPLY_FORMAT
    + "\n{video}",
    # For models of a million parameters, which learn the form of the reply from examples and not from words.
    "brief": "Find: {query}",
}
_PLACEHOLDER = re.compile(r"\{(query|duration|crop)\}")


def load_prompt_template(name_or_path: str) -> str:
    """Return a packaged template by name, or the content of the user's own file.

    It must contain `{query}`, and may contain `{duration}`, `{crop}` and, once, `{video}`.

    Raises:
        InputError: no such name or file, or a template without `{query}` or with several `{video}`.
    """
    if name_or_path in PROMPTS:
        return PROMPTS[name_or_path]
    path = Path(name_or_path)
    if not path.is_file():
        known = ", ".join(sorted(PROMPTS))
        raise InputError(
            f"--prompt_type {name_or_path}: no such template; use one of {known}, or the path of a text file"
        )
    try:
        template = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"--prompt_type {path}: not valid UTF-8 ({error}); convert the file") from error
    if "{query}" not in template:
        raise InputError(f"--prompt_type {path}: the template has no {{query}}; put it where the query belongs")
    if template.count("{video}") > 1:
        raise InputError(f"--prompt_type {path}: the template has several {{video}}; a prompt has one video")
    return template


def fill_prompt(template: str, query: str, duration: float | None, crop: Segment | None = None) -> tuple[str, str]:
    """Return the prompt's text for one query: before the video, and after it.

    `{video}` says where the video goes; without it the video comes first. Other braces than those of the four
    placeholders stay. Times are seconds of the whole file, also where only a crop of it is shown, so the text says
    which part that is.
    """
    values = {
        "query": query,
        "duration": "an unknown number of" if duration is None else f"{duration:.2f}",
        "crop": "" if crop is None else f" You see its part from {crop[0]:.2f} to {crop[1]:.2f} seconds.",
    }
    before, marker, after = template.partition("{video}")
    if not marker:
        before, after = "", before
    fill = functools.partial(_PLACEHOLDER.sub, lambda found: values[found[1]])
    return fill(before), fill(after)
