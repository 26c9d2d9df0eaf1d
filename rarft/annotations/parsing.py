"""Lenient parsing of annotation values: one definition for validation and evaluation."""

import json
import math
import re
from collections.abc import Iterable
from typing import Any

from rarft.annotations.schema import Difficulty

DIFFICULTY_KEYS = ("difficulty", "irrelevance_level", "hardness_level")
DIFFICULTIES: dict[str, Difficulty] = {"original": "original", "easy": "easy", "medium": "medium", "hard": "hard"}
DIFFICULTY_ALIASES: dict[str, Difficulty] = {"weak": "easy", "moderate": "medium", "strong": "hard"}
_BOOLEANS = {"1": True, "true": True, "0": False, "false": False}
_PUNCTUATION = re.compile(r"[^\w\s]+")
_MAX_REPR = 120  # characters


def parse_boolean(value: Any) -> bool | None:
    """Return a boolean, which may be written as a number or a word; None for anything else."""
    if isinstance(value, bool):
        return value
    return _BOOLEANS.get(str(value).strip().lower()) if isinstance(value, int | str) else None


def parse_number(value: Any) -> float | None:
    """Return a finite number, which may be written as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def parse_difficulty(value: Any) -> Difficulty | None:
    """Return the difficulty of any published name; None for anything else."""
    word = value.strip().lower() if isinstance(value, str) else ""
    return DIFFICULTIES.get(word) or DIFFICULTY_ALIASES.get(word)


def base_name(video: str) -> str:
    """Return the last part of a path or URI of any system."""
    return video.replace("\\", "/").rsplit("/", 1)[-1]


def extract_tag(text: str, tag: str) -> str | None:
    """Return the text between the first `<tag>` and the next `</tag>`, or None."""
    start = text.find(f"<{tag}>")
    end = text.find(f"</{tag}>", start) if start >= 0 else -1
    return text[start + len(tag) + 2 : end] if end >= 0 else None


def normalize_text(text: str) -> str:
    """Return the text without case, punctuation and repeated white space."""
    return " ".join(_PUNCTUATION.sub(" ", text.casefold()).split())


def truncate_repr(value: Any) -> str:
    """Return a value as findings quote it: short, printable and on one line."""
    text = " ".join(json.dumps(value, default=str).split())
    return text if len(text) <= _MAX_REPR else f"{text[: _MAX_REPR - 3]}..."


def item_queries(item: Any) -> Iterable[tuple[str, str, bool]]:
    """Yield (video, query, answerable) of each readable query of an item or of a row of `riq.jsonl`."""
    if not isinstance(item, dict) or not isinstance(video := item.get("video"), str):
        return
    if "task_type" in item and isinstance(item.get("query"), str):
        yield video, item["query"], item["task_type"] == "answerable"
    queries = item.get("GRPO")
    for query in queries if isinstance(queries, list) else []:
        if isinstance(query, dict) and isinstance(text := query.get("q"), str):
            answerable = parse_boolean(query.get("r"))
            if answerable is not None:
                yield video, text.strip(), answerable
