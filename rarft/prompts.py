"""Prompt templates, packaged or the user's own."""

import functools
import re

from rarft.errors import InputError
from rarft.segments import Segment
from rarft.storage.files import local_path

_THINK = "<think>what you see that bears on the query; quote times as <timestep>xx.xx to xx.xx</timestep></think>"
_REPLY_FORMAT = (
    "The query may describe something that never happens in the video. Then say so instead of guessing.\n"
    "Reply with exactly three blocks, in this order:\n"
    f"{_THINK}\n"
    "<answer>the moment in seconds, such as 12.54 to 17.83; or, if there is none, why the query does not "
    "fit the video, without any times</answer>\n"
    "<correction>NIL if the query fits; otherwise the query rewritten so that it does</correction>"
)
# The training guide names its template without giving the text; this wording is our own (decision D16).
_RARFT = (
    'The video lasts {duration} seconds.{crop} Find the moment that this query describes: "{query}".\n' + _REPLY_FORMAT
)
PROMPTS = {
    "rarft": _RARFT,
    "rarft-no-think": _RARFT.replace(_THINK, "<think></think>, always empty"),
    # Time-R1-7B was trained with the text before the video and without the duration.
    "rarft-text-first": 'Find the moment of the video that this query describes: "{query}".{crop}\n'
    + _REPLY_FORMAT
    + "\n{video}",
    # For tiny models, which learn the reply's format from examples.
    "brief": "Find: {query}",
}
_PLACEHOLDER = re.compile(r"\{(query|duration|crop)\}")


def load_prompt_template(name_or_path: str) -> str:
    """Return a packaged template by its name, or the content of the user's own file.

    A template must contain `{query}`. It may contain `{duration}`, `{crop}` and, at most once, `{video}`.

    Raises:
        InputError: There is no such template or file, or the template is invalid.
    """
    if name_or_path in PROMPTS:
        return PROMPTS[name_or_path]
    path = local_path(name_or_path)
    if not path.is_file():
        raise InputError(f"{path}: no such template; use {', '.join(sorted(PROMPTS))} or the path of a text file")
    try:
        template = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not valid UTF-8 ({error}); convert the file") from error
    if "{query}" not in template:
        raise InputError(f"{path}: {{query}} is missing from the template; insert it where the query belongs")
    if template.count("{video}") > 1:
        raise InputError(f"{path}: the template has several {{video}}; use at most one")
    return template


def fill_prompt(template: str, query: str, duration: float | None, crop: Segment | None = None) -> tuple[str, str]:
    """Fill in a template and return its text before the video and after it.

    `{video}` marks the place of the video; without it the video comes first. Other braces are left as they are.

    Args:
        template: Result of `load_prompt_template`.
        query: Text of the query.
        duration: Duration of the whole video, in seconds; None if unknown.
        crop: Part of the video that the model sees, in seconds of the whole video.
    """
    values = {
        "query": query,
        "duration": "an unknown number of" if duration is None else f"{duration:.2f}",
        "crop": "" if crop is None else f" You see its part from {crop[0]:.2f} to {crop[1]:.2f} seconds.",
    }
    before, after = template.split("{video}", 1) if "{video}" in template else ("", template)
    fill = functools.partial(_PLACEHOLDER.sub, lambda match: values[match[1]])
    return fill(before), fill(after)
