"""The checks of one query's parts: its segment, its ground-truth answer, and its labels."""

from typing import Any

from rarft.annotations.context import FindingList, ValidationContext, extract_tag, number, shown
from rarft.annotations.item_checks import ItemFacts
from rarft.annotations.schema import CATEGORIES, Difficulty
from rarft.completion import find_segment, format_segment
from rarft.segments import Segment

_DIFFICULTIES: dict[str, Difficulty] = {"original": "original", "easy": "easy", "medium": "medium", "hard": "hard"}
_OTHER_NAMES: dict[str, Difficulty] = {"weak": "easy", "moderate": "medium", "strong": "hard"}
DIFFICULTY_KEYS = ("difficulty", "irrelevance_level", "hardness_level")


def known_difficulty(stated: Any) -> Difficulty | None:
    """The difficulty of any published name; None for what is none."""
    word = stated.strip().lower() if isinstance(stated, str) else ""
    return _DIFFICULTIES.get(word) or _OTHER_NAMES.get(word)


def check_segment(
    item: dict[str, Any], owned: bool, facts: ItemFacts, around: ValidationContext, findings: FindingList
) -> Segment | None:
    """The segment of an answerable query, clamped where it may be; None where it cannot be used.

    Args:
        item: whose timestamp is read.
        owned: whether the timestamp belongs to this query.
        facts: the item's duration and crop.
        around: the tolerance.
        findings: gets what is found.
    """
    stated = item.get("timestamp")
    if stated in (None, [], ""):
        findings.add("segment-missing", f"timestamp is {shown(stated)}")
        return None
    if not owned:
        wanted = shown(item.get("query_text"))
        found = f"one timestamp, {shown(stated)}, for several answerable queries; query_text is {wanted}"
        findings.add("segment-of-another", found)
        return None
    start, end = map(number, stated) if isinstance(stated, list) and len(stated) == 2 else (None, None)
    if start is None or end is None:
        findings.add("segment-not-numbers", f"timestamp is {shown(stated)}")
        return None
    if start < 0:
        findings.add("segment-negative", f"timestamp {shown(stated)}")
        return None
    if start >= end:
        findings.add("segment-reversed", f"timestamp {shown(stated)}")
        return None
    if facts.crop is not None and not facts.crop[0] <= start < end <= facts.crop[1]:
        findings.add("segment-outside-crop", f"timestamp {shown(stated)}, crop {shown(list(facts.crop))}")
    if facts.duration is None or end <= facts.duration:
        return (start, end)
    overrun = end - facts.duration
    found = f"timestamp {shown(stated)} in {facts.duration:g} s of video"
    if overrun > around.tolerance or start >= facts.duration:
        findings.add("segment-past-end", f"{found}: {overrun:.2f} s past the end")
        return None
    if not findings.mend("segment-clamped", found, f"end clamped to {facts.duration:g}"):
        return None
    return (start, facts.duration)


def check_answer(
    query: dict[str, Any],
    segment: Segment | None,
    answerable: bool,
    tolerance: float,
    extra: dict[str, Any],
    findings: FindingList,
) -> str:
    """The ground-truth answer without tags; a correction that stands beside it goes to `extra`."""
    stated = query.get("a")
    if stated is not None and not isinstance(stated, str):
        findings.add("wrong-type", f"a is {shown(stated)}, not text")
        return ""
    text = stated or ""
    for tag in ("correction", "correct"):
        if (correction := extract_tag(text, tag)) is not None:
            extra.setdefault("a.correction", correction.strip())
            if tag == "correct":
                findings.mend("correct-tag", "<correct>", "read as <correction>")
            text = text.replace(f"<{tag}>{correction}</{tag}>", "", 1)
    block = extract_tag(text, "answer")
    answer = (text if block is None else block).strip()
    if not answer:
        if not answerable:
            findings.add("refusal-empty", "the answer is blank")
        elif segment is not None:
            answer = format_segment(segment)
            findings.mend("answer-filled", "the answer is blank", answer)
        return answer
    if block is None:
        findings.mend("answer-untagged", shown(stated), "taken as the answer")
    said = find_segment(answer)
    was_clamped = any(finding.check.name == "segment-clamped" for finding in findings)
    if answerable and segment is not None and said != segment and not was_clamped:
        is_near = said is not None and max(abs(a - b) for a, b in zip(said, segment, strict=True)) <= tolerance
        found = f"answer {shown(answer)}, timestamp {shown(list(segment))}"
        findings.add("answer-rounded" if is_near else "answer-differs", found)
    if not answerable and said is not None:
        findings.add("refusal-with-timestamp", shown(answer))
    return answer


def check_categories(query: dict[str, Any], extra: dict[str, Any], findings: FindingList) -> list[str]:
    """The mismatch categories, whatever their names; what is no name goes to `extra`."""
    stated = query.get("c")
    names = [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []
    categories = [name for name in names if isinstance(name, str)]
    if (stated is not None and not isinstance(stated, str | list)) or len(categories) != len(names):
        findings.add("category-unknown", f"c is {shown(stated)}", "noted: left out")
        extra["c"] = stated
    if unknown := sorted(set(categories) - CATEGORIES):
        findings.add("category-unknown", shown(unknown), "noted: kept")
    return categories


def check_difficulty(
    item: dict[str, Any],
    query: dict[str, Any],
    extra: dict[str, Any],
    around: ValidationContext,
    findings: FindingList,
) -> Difficulty | None:
    """The query's difficulty, else the item's; one of another name goes to `extra`."""
    levels = [query.get(key) for key in DIFFICULTY_KEYS] + [item.get("difficulty")]
    level = next((level for level in levels if level is not None), None)
    if level is None:
        return None
    word = level.strip().lower() if isinstance(level, str) else ""
    if word in _DIFFICULTIES:
        return _DIFFICULTIES[word]
    if word in _OTHER_NAMES and "difficulty-names" in around.repairs:
        findings.add("difficulty-renamed", f"difficulty is {shown(level)}", f"noted: read as {_OTHER_NAMES[word]}")
        return _OTHER_NAMES[word]
    findings.add("difficulty-unknown", f"difficulty is {shown(level)}", "noted: left out")
    extra["difficulty"] = level
    return None
