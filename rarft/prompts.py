"""Prompt templates: the packaged ones, those of users, and how they are filled in."""

import functools
import re
from pathlib import Path

from rarft.errors import InputError
from rarft.segments import Segment

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
