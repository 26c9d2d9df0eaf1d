"""Checks of one item: the outcome of each of its queries, with findings.

What depends on the rest of the file (reference queries, contradictions, duplicates, excluded videos) comes from the
`ValidationContext`.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from rarft.annotations.annotation_index import hash64
from rarft.annotations.context import FindingList, ValidationContext, has_error
from rarft.annotations.encoding import compact_json, has_only_finite_numbers, is_unicode
from rarft.annotations.findings import Finding
from rarft.annotations.item_checks import QUARANTINE_KEYS, ItemFacts, check_item_facts
from rarft.annotations.parsing import DIFFICULTY_KEYS, base_name, extract_tag, parse_boolean, truncate_repr
from rarft.annotations.query_checks import (
    check_answer,
    check_categories,
    check_difficulty,
    check_segments,
    own_segments,
)
from rarft.annotations.reader import MalformedLine
from rarft.annotations.schema import Sample, Source, TaskType, only_segment
from rarft.segments import Segment

_QUERY_KEYS = frozenset({"q", "a", "r", "c", *DIFFICULTY_KEYS})
_SPECIAL_TOKEN = re.compile(r"<\|\w{1,40}\|>")


@dataclass(frozen=True)
class Outcome:
    """Outcome of one query: either a sample or a quarantined row, and the findings."""

    sample: Sample | None
    quarantined: dict[str, Any] | None
    findings: list[Finding]


def _times(segments: Sequence[Segment]) -> Any:
    """Return segments as JSON: a list for one, a list of lists for several, None for none."""
    only = only_segment(segments)
    return list(only) if only else [list(segment) for segment in segments] or None


def sample_id(video: str, query: str, task_type: TaskType, segments: Sequence[Segment]) -> str:
    """Return the first 16 hex digits of the SHA-256 of (video base name, query, task type, segments)."""
    parts = [base_name(video), query, task_type, _times(segments)]
    return hashlib.sha256(compact_json(parts)).hexdigest()[:16]


def _answerable(query: Any) -> bool | None:
    """Return whether the video answers a query, as its annotation states; None if that is not readable."""
    return parse_boolean(query.get("r")) if isinstance(query, dict) else None


def _segment_owner(item: dict[str, Any], queries: list[Any]) -> int | None:
    """Return the index of the answerable query that the item's only timestamp belongs to."""
    answerable = [index for index, query in enumerate(queries) if _answerable(query)]
    wanted = item.get("query_text")
    wanted = wanted.strip() if isinstance(wanted, str) else None
    for index in answerable:
        if str(queries[index].get("q")).strip() == wanted:
            return index
    return answerable[0] if len(answerable) == 1 else None


def _contrast(item: dict[str, Any], answerable: bool) -> str | None:
    """Return the ground-truth answer of the item's first query of the other task type, or a quarantined row's."""
    for other in item["GRPO"]:
        if _answerable(other) is (not answerable) and isinstance(other.get("a"), str):
            block = extract_tag(other["a"], "answer")
            if answer := (other["a"] if block is None else block).strip():
                return answer
    contrast = item.get("_contrast_answer")
    return contrast if isinstance(contrast, str) else None


def _check_against_file(
    sample: Sample, video: str, facts: ItemFacts, context: ValidationContext, findings: FindingList
) -> None:
    """Check for contradictions, excluded videos and duplicates."""
    if context.index.is_contradiction(video, sample.query):
        findings.add("contradiction", truncate_repr(sample.query))
    elif sample.task_type == "refusable" and context.index.refuses_answerable_query(video, sample.query):
        findings.add("refusable-matches-answerable", truncate_repr(sample.query))
    if context.excluded_videos and hash64(base_name(video)) in context.excluded_videos:
        findings.add("train-eval-video-overlap", truncate_repr(video))
    if not has_error([*facts.findings, *findings]):  # others cannot be duplicates of a quarantined query
        key = hash64(f"{sample.video}|{sample.id}")
        if key in context.seen:
            findings.add("duplicate", truncate_repr(sample.query))
        context.seen.add(key)


def _merge_extra(item: dict[str, Any], query: dict[str, Any], findings: FindingList) -> dict[str, Any]:
    """Return the extra fields of item and query. A name in both means the query's; the item's becomes `item.NAME`."""
    if query and not has_only_finite_numbers(query):
        findings.add("non-finite-number", "NaN or Infinity in an extra field", "noted: written as null")
    return {f"item.{key}" if key in query else key: value for key, value in item.items()} | query


def _check_query(
    item: dict[str, Any], index: int, owner: int | None, facts: ItemFacts, context: ValidationContext, item_index: int
) -> tuple[Sample | None, FindingList]:
    name = item.get("video")
    query = item["GRPO"][index]
    findings = FindingList(context, item_index, name if isinstance(name, str) else None, index)
    if not isinstance(query, dict):
        findings.add("wrong-type", f"query is {truncate_repr(query)}, not an object")
        return None, findings
    text, answerable = query.get("q"), parse_boolean(query.get("r"))
    if not isinstance(text, str):
        findings.add("wrong-type", f"q is {truncate_repr(text)}, not a string")
    if answerable is None:
        findings.add("wrong-type", f"r is {truncate_repr(query.get('r'))}, not true or false")
    if not isinstance(text, str) or answerable is None:
        return None, findings
    text = text.strip()
    if not text:
        findings.add("query-empty", "q is blank")
    if _SPECIAL_TOKEN.search(text):
        findings.add("special-token", truncate_repr(text))
    query_extra = {key: value for key, value in query.items() if key not in _QUERY_KEYS}
    extra = _merge_extra(facts.extra, query_extra, findings)
    segments = check_segments(item, query, index == owner, facts, context, findings) if answerable else []
    answer = check_answer(query, segments, answerable, context.tolerance, extra, findings)
    if not answerable and not facts.references:
        findings.add("no-reference-queries", truncate_repr(text))
    task_type: TaskType = "answerable" if answerable else "refusable"
    sample = Sample(
        id=sample_id(facts.video, text, task_type, segments),
        video=facts.video,
        query=text,
        task_type=task_type,
        segments=segments,
        segment=only_segment(segments),
        duration=facts.duration,
        crop=facts.crop,
        gt_answer=answer,
        contrast_answer=_contrast(item, answerable),
        reference_queries=facts.references,
        categories=check_categories(query, extra, findings),
        difficulty=check_difficulty(item, query, extra, context, findings),
        captions=facts.captions,
        source=Source(context.file, item_index, index),
        extra=extra,
        video_file=facts.video_file,
    )
    if isinstance(name, str):
        _check_against_file(sample, name, facts, context, findings)
    return sample, findings


def _item_from_row(row: dict[str, Any]) -> tuple[dict[str, Any], Sample]:
    """Return a row of riq.jsonl as an item and as a sample; raise a `msgspec.ValidationError` if it is invalid."""
    sample = msgspec.convert({key: value for key, value in row.items() if key not in QUARANTINE_KEYS}, Sample)
    start, end = sample.crop or (None, None)
    query = {
        "q": sample.query,
        "a": f"<answer>{sample.gt_answer}</answer>",
        "r": sample.task_type == "answerable",
        "c": sample.categories,
        "difficulty": sample.difficulty,
    }
    item = {
        "video": sample.video,
        "query_text": sample.query,
        "timestamp": _times(sample.segments),
        "duration": sample.duration,
        "video_start": start,
        "video_end": end,
        "GRPO": [query],
    }
    return item, sample


def _quarantined_row(
    item: dict[str, Any], query: Any, facts: ItemFacts, findings: list[Finding], tolerance: float
) -> dict[str, Any]:
    """Return an item with this query alone, which can be validated after it is fixed by hand."""
    row = {**item, "GRPO": [query], "_reference_queries": facts.references}
    answerable = _answerable(query)
    if answerable is not None and (contrast := _contrast(item, answerable)) is not None:
        row["_contrast_answer"] = contrast
    names = {finding.check.name for finding in findings}
    if names & {"segment-of-other-query", "segment-from-answer"}:
        # As the only query of its item, it would seem to own the segment.
        own = own_segments(item, query, tolerance) if "segment-from-answer" in names else []
        row |= {"timestamp": [list(segment) for segment in own], "_timestamp": item["timestamp"]}
    return row


def check_item(raw: Any, index: int, context: ValidationContext) -> tuple[list[Finding], list[Outcome]]:
    """Check an item as read from the file: an annotated moment, a row of riq.jsonl, or any other value.

    Returns:
        Findings about the item as a whole, and the outcome of each of its queries.
    """
    item_findings = FindingList(context, index, None)
    if isinstance(raw, MalformedLine):
        item_findings.add("malformed-line", f"{raw.problem}: {truncate_repr(raw.text)}")
        return [], [Outcome(None, {"_line": raw.text}, item_findings)]
    if not isinstance(raw, dict):
        item_findings.add("invalid-item", truncate_repr(raw))
        return [], [Outcome(None, {"_item": raw}, item_findings)]
    row: Sample | None = None
    item = raw
    if "task_type" in raw and "GRPO" not in raw:
        try:
            item, row = _item_from_row(raw)
        except msgspec.ValidationError as error:
            item_findings.add("wrong-type", f"row of riq.jsonl: {error}")
            return [], [Outcome(None, raw, item_findings)]
    queries = item.get("GRPO")
    if not isinstance(queries, list) or not queries:
        item_findings.add("invalid-item", f"GRPO is {truncate_repr(queries)}, not a list of queries")
        return [], [Outcome(None, raw, item_findings)]
    if not is_unicode(raw):
        name = item.get("video")
        name = name.encode("utf-8", "backslashreplace").decode() if isinstance(name, str) else None
        outcomes = []
        for number, query in enumerate(queries):
            findings = FindingList(context, index, name, number)
            findings.add("invalid-unicode", truncate_repr(query))
            outcomes.append(Outcome(None, {**item, "GRPO": [query]} if row is None else raw, findings))
        return [], outcomes
    facts = check_item_facts(item, index, context)
    task_types = set(map(_answerable, queries))
    # Rows of riq.jsonl and quarantine.jsonl have one query each.
    if row is None and "_findings" not in item and task_types in ({True}, {False}):
        facts.findings.add("single-task-type", f"all {'answerable' if True in task_types else 'refusable'}")
    owner = _segment_owner(item, queries)
    outcomes = []
    for number, query in enumerate(queries):
        sample, findings = _check_query(facts.item, number, owner, facts, context, index)
        if sample is None or has_error([*facts.findings, *findings]):
            quarantined = raw if row is not None else _quarantined_row(item, query, facts, findings, context.tolerance)
            outcomes.append(Outcome(None, quarantined, findings))
            continue
        if row is not None:
            checked = {
                name: getattr(sample, name) for name in ("id", "video", "segments", "segment", "duration", "crop")
            }
            sample = msgspec.structs.replace(row, **checked, video_file=sample.video_file or row.video_file)
        outcomes.append(Outcome(sample, None, list(findings)))
    return list(facts.findings), outcomes
