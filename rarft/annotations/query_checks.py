"""Checks of the parts of one query: its segment, ground-truth answer, categories and difficulty."""

from typing import Any

from rarft.annotations.context import FindingList, ValidationContext
from rarft.annotations.item_checks import ItemFacts
from rarft.annotations.parsing import (
    DIFFICULTIES,
    DIFFICULTY_ALIASES,
    DIFFICULTY_KEYS,
    extract_tag,
    truncate_repr,
)
from rarft.annotations.schema import CATEGORIES, Difficulty
from rarft.annotations.times import parse_segments
from rarft.answers import find_segments, parse_answer
from rarft.completion import format_segments
from rarft.segments import Segment


def _answer_block(text: str) -> str:
    """Return the text in answer tags, or all of it without tags."""
    block = extract_tag(text, "answer")
    return (text if block is None else block).strip()


def _are_near(one: list[Segment], other: list[Segment], tolerance: float) -> bool:
    """Check that two lists of segments differ by no more than a tolerance in seconds."""
    differences = [abs(a - b) for pair in zip(one, other, strict=False) for a, b in zip(*pair, strict=True)]
    return len(one) == len(other) and max(differences, default=0.0) <= tolerance


def own_segments(item: dict[str, Any], query: dict[str, Any], tolerance: float) -> list[Segment]:
    """Return the segments that a query's answer states, if they are not those of the item's timestamp."""
    answer = query.get("a")
    stated = find_segments(_answer_block(answer)) if isinstance(answer, str) else []
    return [] if _are_near(sorted(stated), sorted(parse_segments(item["timestamp"]) or []), tolerance) else stated


def check_segments(
    item: dict[str, Any],
    query: dict[str, Any],
    is_owner: bool,
    facts: ItemFacts,
    context: ValidationContext,
    findings: FindingList,
) -> list[Segment]:
    """Return the segments of an answerable query in order of time, clamped if allowed; empty if one cannot be used.

    `is_owner` states whether the item's timestamp belongs to this query. Another query's answer may state its own.
    """
    timestamp = item.get("timestamp")
    if timestamp in (None, [], ""):
        findings.add("segment-missing", f"timestamp is {truncate_repr(timestamp)}")
        return []
    segments = parse_segments(timestamp)
    if not is_owner:
        found = f"one timestamp, {truncate_repr(timestamp)}, for several answerable queries; query_text is "
        found += truncate_repr(item.get("query_text"))
        segments = own_segments(item, query, context.tolerance)
        if not segments or "use-own-segment" not in context.repairs:
            findings.add("segment-of-other-query", found)
            return []
        findings.repair("segment-from-answer", found, f"segment {truncate_repr(segments)} of its answer")
    if segments is None:
        findings.add("segment-not-numeric", f"timestamp is {truncate_repr(timestamp)}")
        return []
    checked = [_check_segment(segment, facts, context, findings) for segment in sorted(set(segments))]
    return [] if None in checked else sorted({segment for segment in checked if segment})


def _check_segment(
    segment: Segment, facts: ItemFacts, context: ValidationContext, findings: FindingList
) -> Segment | None:
    start, end = segment
    timestamp = f"timestamp {truncate_repr(list(segment))}"
    if start < 0 or start >= end:
        findings.add("segment-negative" if start < 0 else "segment-reversed", timestamp)
        return None
    if facts.crop is not None and not facts.crop[0] <= start < end <= facts.crop[1]:
        findings.add("segment-outside-crop", f"{timestamp}, crop {truncate_repr(list(facts.crop))}")
    if facts.duration is None or end <= facts.duration:
        return segment
    overrun = end - facts.duration
    found = f"{timestamp} in {facts.duration:g} s of video"
    if overrun > context.tolerance or start >= facts.duration:
        findings.add("segment-past-end", f"{found}: {overrun:.2f} s past the end")
        return None
    if not findings.repair("segment-clamped", found, f"end clamped to {facts.duration:g}"):
        return None
    return (start, facts.duration)


def check_answer(
    query: dict[str, Any],
    segments: list[Segment],
    answerable: bool,
    tolerance: float,
    extra: dict[str, Any],
    findings: FindingList,
) -> str:
    """Return the ground-truth answer without tags. A correction in it goes to `extra`."""
    value = query.get("a")
    if value is not None and not isinstance(value, str):
        findings.add("wrong-type", f"a is {truncate_repr(value)}, not a string")
        return ""
    text = value or ""
    for tag in ("correction", "correct"):
        if (correction := extract_tag(text, tag)) is not None:
            extra.setdefault("a.correction", correction.strip())
            if tag == "correct":
                findings.repair("correct-tag", "<correct>", "read as <correction>")
            text = text.replace(f"<{tag}>{correction}</{tag}>", "", 1)
    answer = _answer_block(text)
    if not answer:
        if not answerable:
            findings.add("refusal-empty", "the answer is blank")
        elif segments:
            answer = format_segments(segments)
            findings.repair("answer-filled", "the answer is blank", answer)
        return answer
    if extract_tag(text, "answer") is None:
        findings.repair("answer-untagged", truncate_repr(value), "used as the answer")
    # Of an answer to a query with one segment, the first counts (D2).
    stated = sorted(find_segments(answer)) if len(segments) > 1 else find_segments(answer)[:1]
    was_clamped = any(finding.check.name == "segment-clamped" for finding in findings)
    if answerable and segments and stated != segments and not was_clamped:
        is_near = _are_near(stated, segments, tolerance)
        found = f"answer {truncate_repr(answer)}, timestamp {truncate_repr(segments)}"
        findings.add("answer-rounded" if is_near else "answer-mismatch", found)
    if not answerable and parse_answer(answer)[0] != "refusal":
        findings.add("refusal-with-timestamp", truncate_repr(answer))
    return answer


def check_categories(query: dict[str, Any], extra: dict[str, Any], findings: FindingList) -> list[str]:
    """Return the mismatch categories, known or not. Values that are not strings go to `extra`."""
    value = query.get("c")
    names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
    categories = [name for name in names if isinstance(name, str)]
    if (value is not None and not isinstance(value, str | list)) or len(categories) != len(names):
        findings.add("category-unknown", f"c is {truncate_repr(value)}", "noted: dropped")
        extra["c"] = value
    if unknown := sorted(set(categories) - CATEGORIES):
        findings.add("category-unknown", truncate_repr(unknown), "noted: kept")
    return categories


def check_difficulty(
    item: dict[str, Any],
    query: dict[str, Any],
    extra: dict[str, Any],
    context: ValidationContext,
    findings: FindingList,
) -> Difficulty | None:
    """Return the difficulty of the query or else of the item. An unknown one goes to `extra`."""
    values = [query.get(key) for key in DIFFICULTY_KEYS] + [item.get("difficulty")]
    value = next((value for value in values if value is not None), None)
    if value is None:
        return None
    word = value.strip().lower() if isinstance(value, str) else ""
    if word in DIFFICULTIES:
        return DIFFICULTIES[word]
    found = f"difficulty is {truncate_repr(value)}"
    if word in DIFFICULTY_ALIASES and "map-difficulty" in context.repairs:
        findings.add("difficulty-mapped", found, f"noted: mapped to {DIFFICULTY_ALIASES[word]}")
        return DIFFICULTY_ALIASES[word]
    findings.add("difficulty-unknown", found, "noted: dropped")
    extra["difficulty"] = value
    return None
