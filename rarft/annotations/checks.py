"""The checks of one item: what each of its queries becomes, and why.

Nothing here reads the annotations file; what needs the whole of it (reference queries, contradictions,
duplicates, leaks) comes in through `ValidationContext`.
"""

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import msgspec

from rarft.annotations.context import FindingList, ValidationContext, extract_tag, has_error, shown
from rarft.annotations.encoding import compact_json, has_only_finite_numbers, is_text, printable
from rarft.annotations.file_index import base_name, hash64, read_boolean
from rarft.annotations.findings import Finding
from rarft.annotations.item_checks import OWN_KEYS, ItemFacts, check_item_facts
from rarft.annotations.query_checks import (
    DIFFICULTY_KEYS,
    check_answer,
    check_categories,
    check_difficulty,
    check_segment,
)
from rarft.annotations.reader import MalformedLine
from rarft.annotations.schema import Sample, Source, TaskType
from rarft.segments import Segment

_QUERY_KEYS = frozenset({"q", "a", "r", "c", *DIFFICULTY_KEYS})
_SPECIAL_TOKEN = re.compile(r"<\|\w{1,40}\|>")


@dataclass(frozen=True)
class Outcome:
    """What became of one query: a sample or a quarantined row, and what was found on the way."""

    sample: Sample | None
    quarantined: dict[str, Any] | None
    findings: list[Finding]


def sample_id(video: str, query: str, task_type: TaskType, segment: Segment | None) -> str:
    """First 16 hex digits of the SHA-256 of (video base name, query, task type, segment)."""
    parts = [base_name(video), query, task_type, None if segment is None else list(segment)]
    return hashlib.sha256(compact_json(parts)).hexdigest()[:16]


def _segment_owner(item: dict[str, Any], queries: list[Any]) -> int | None:
    """Index of the answerable query that the item's one timestamp belongs to."""
    answerable = [
        index
        for index, query in enumerate(queries)
        if isinstance(query, dict) and read_boolean(query.get("r")) is True
    ]
    wanted = item.get("query_text")
    wanted = wanted.strip() if isinstance(wanted, str) else None
    own = [index for index in answerable if str(queries[index].get("q")).strip() == wanted]
    if own:
        return own[0]
    return answerable[0] if len(answerable) == 1 else None


def _contrast(item: dict[str, Any], answerable: bool) -> str | None:
    """The ground-truth answer of the item's first query of the other kind, or what a quarantined row carries."""
    for other in item["GRPO"]:
        if (
            isinstance(other, dict)
            and read_boolean(other.get("r")) is (not answerable)
            and isinstance(other.get("a"), str)
        ):
            block = extract_tag(other["a"], "answer")
            if answer := (other["a"] if block is None else block).strip():
                return answer
    carried = item.get("_contrast_answer")
    return carried if isinstance(carried, str) else None


def _check_the_rest_of_the_file(
    sample: Sample, video: str, facts: ItemFacts, around: ValidationContext, findings: FindingList
) -> None:
    """What only the whole file, or another one, can tell: contradictions, leaks and duplicates."""
    if around.survey.is_contradiction(video, sample.query):
        findings.add("contradiction", shown(sample.query))
    elif sample.task_type == "refusable" and around.survey.refuses_answerable_query(video, sample.query):
        findings.add("refuses-a-true-query", shown(sample.query))
    if around.leaked and hash64(base_name(video)) in around.leaked:
        findings.add("video-leaks", shown(video))
    if not has_error([*facts.findings, *findings]):  # a query that is quarantined anyway is nobody's original
        identity = hash64(f"{sample.video}|{sample.id}")
        if identity in around.seen:
            findings.add("duplicate", shown(sample.query))
        around.seen.add(identity)


def _merged(of_item: dict[str, Any], of_query: dict[str, Any], findings: FindingList) -> dict[str, Any]:
    """The extra fields of both; one that both have stands for the query's, and the item's as `item.NAME`."""
    if of_query and not has_only_finite_numbers(of_query):
        findings.add("number-not-json", "NaN or Infinity in an extra field", "noted: written as null")
    return {f"item.{key}" if key in of_query else key: value for key, value in of_item.items()} | of_query


def _check_query(
    item: dict[str, Any], index: int, owner: int | None, facts: ItemFacts, around: ValidationContext, item_index: int
) -> tuple[Sample | None, FindingList]:
    name = item.get("video")
    query = item["GRPO"][index]
    findings = FindingList(around, item_index, name if isinstance(name, str) else None, index)
    if not isinstance(query, dict):
        findings.add("wrong-type", f"the query is {shown(query)}, not an object")
        return None, findings
    text, answerable = query.get("q"), read_boolean(query.get("r"))
    if not isinstance(text, str):
        findings.add("wrong-type", f"q is {shown(text)}, not text")
    if answerable is None:
        findings.add("wrong-type", f"r is {shown(query.get('r'))}, neither true nor false")
    if not isinstance(text, str) or answerable is None:
        return None, findings
    text = text.strip()
    if not text:
        findings.add("query-empty", "q is blank")
    if _SPECIAL_TOKEN.search(text):
        findings.add("special-token", shown(text))
    extra = _merged(facts.extra, {key: value for key, value in query.items() if key not in _QUERY_KEYS}, findings)
    segment = check_segment(item, index == owner, facts, around, findings) if answerable else None
    answer = check_answer(query, segment, answerable, around.tolerance, extra, findings)
    if not answerable and not facts.references:
        findings.add("no-references", shown(text))
    task_type: TaskType = "answerable" if answerable else "refusable"
    sample = Sample(
        id=sample_id(facts.video, text, task_type, segment),
        video=facts.video,
        query=text,
        task_type=task_type,
        segment=segment,
        duration=facts.duration,
        crop=facts.crop,
        gt_answer=answer,
        contrast_answer=_contrast(item, answerable),
        reference_queries=facts.references,
        categories=check_categories(query, extra, findings),
        difficulty=check_difficulty(item, query, extra, around, findings),
        captions=facts.captions,
        source=Source(around.file, item_index, index),
        extra=extra,
    )
    if isinstance(name, str):
        _check_the_rest_of_the_file(sample, name, facts, around, findings)
    return sample, findings


def _as_item(row: dict[str, Any]) -> tuple[dict[str, Any], Sample]:
    """A row of riq.jsonl as the item that it came from, and the row itself.

    Raises:
        msgspec.ValidationError: the row is not one.
    """
    sample = msgspec.convert({key: value for key, value in row.items() if key not in OWN_KEYS}, Sample)
    start, end = sample.crop if sample.crop is not None else (None, None)
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
        "timestamp": list(sample.segment) if sample.segment else [],
        "duration": sample.duration,
        "video_start": start,
        "video_end": end,
        "GRPO": [query],
    }
    return item, sample


def _quarantined(item: dict[str, Any], query: Any, facts: ItemFacts, findings: list[Finding]) -> dict[str, Any]:
    """The query in its item, alone: mended by hand, it can be validated as it stands."""
    kept = {**item, "GRPO": [query], "_reference_queries": facts.references}
    answerable = read_boolean(query.get("r")) if isinstance(query, dict) else None
    if answerable is not None and (contrast := _contrast(item, answerable)) is not None:
        kept["_contrast_answer"] = contrast
    if any(finding.check.name == "segment-of-another" for finding in findings):
        # Alone in its item, the query would seem to own the segment.
        kept |= {"timestamp": [], "_timestamp": item["timestamp"]}
    return kept


def check_item(raw: Any, index: int, around: ValidationContext) -> tuple[list[Finding], list[Outcome]]:
    """Check one item of the file.

    Args:
        raw: the item as read: an annotated moment, a row of riq.jsonl, or anything else that stood there.
        index: of the item in the file.
        around: what is known beside it; what is seen here is added to it.

    Returns:
        Findings about the item as a whole, and the outcome of each of its queries.
    """
    whole = FindingList(around, index, None)
    if isinstance(raw, MalformedLine):
        whole.add("broken-line", f"{raw.problem}: {shown(raw.text)}")
        return [], [Outcome(None, {"_line": raw.text}, whole)]
    if not isinstance(raw, dict):
        whole.add("not-an-item", shown(raw))
        return [], [Outcome(None, {"_item": raw}, whole)]
    row: Sample | None = None
    item = raw
    if "task_type" in raw and "GRPO" not in raw:
        try:
            item, row = _as_item(raw)
        except msgspec.ValidationError as error:
            whole.add("wrong-type", f"a row of riq.jsonl: {error}")
            return [], [Outcome(None, raw, whole)]
    queries = item.get("GRPO")
    if not isinstance(queries, list) or not queries:
        whole.add("not-an-item", f"GRPO is {shown(queries)}, no list of queries")
        return [], [Outcome(None, raw, whole)]
    if not is_text(raw):
        name = printable(item["video"]) if isinstance(item.get("video"), str) else None
        outcomes = []
        for number, query in enumerate(queries):
            findings = FindingList(around, index, name, number)
            findings.add("not-unicode", shown(query))
            outcomes.append(Outcome(None, {**item, "GRPO": [query]} if row is None else raw, findings))
        return [], outcomes
    facts = check_item_facts(item, index, around)
    kinds = {read_boolean(query.get("r")) if isinstance(query, dict) else None for query in queries}
    # A quarantined query, or a row that validation wrote, stands alone for another reason.
    if row is None and "_findings" not in item and kinds in ({True}, {False}):
        facts.findings.add("one-kind-only", f"all {'answerable' if True in kinds else 'refusable'}")
    owner = _segment_owner(item, queries)
    outcomes = []
    for number, query in enumerate(queries):
        sample, findings = _check_query(item, number, owner, facts, around, index)
        if sample is not None and not has_error([*facts.findings, *findings]):
            if row is not None:
                sample = msgspec.structs.replace(
                    row,
                    id=sample.id,
                    video=sample.video,
                    segment=sample.segment,
                    duration=sample.duration,
                    crop=sample.crop,
                )
            outcomes.append(Outcome(sample, None, list(findings)))
            continue
        outcomes.append(
            Outcome(None, raw if row is not None else _quarantined(item, query, facts, findings), findings)
        )
    return list(facts.findings), outcomes
