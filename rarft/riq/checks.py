"""The checks of one item: what each of its queries becomes, and why.

Nothing here reads the annotations file; what needs the whole of it (reference queries, contradictions,
duplicates, leaks) comes in through `Surroundings`.
"""

import hashlib
import json
import math
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec

from rarft.response import find_segment, format_segment
from rarft.riq.encoding import compact_json
from rarft.riq.findings import CATALOGUE, REPAIRS, Finding
from rarft.riq.reading import BrokenLine
from rarft.riq.schema import CATEGORIES, Difficulty, Sample, Source, TaskType
from rarft.riq.survey import Survey, base_name, hash64, item_queries, read_boolean
from rarft.riq.videos import VideoIndex
from rarft.segments import Segment
from rarft.video.probe import VideoError

_DIFFICULTIES: dict[str, Difficulty] = {"original": "original", "easy": "easy", "medium": "medium", "hard": "hard"}
_OTHER_NAMES: dict[str, Difficulty] = {"weak": "easy", "moderate": "medium", "strong": "hard"}
_DIFFICULTY_KEYS = ("difficulty", "irrelevance_level", "hardness_level")
_ITEM_KEYS = {
    "video",
    "query_text",
    "timestamp",
    "duration",
    "video_start",
    "video_end",
    "think",
    "GRPO",
    "difficulty",
}
_QUERY_KEYS = {"q", "a", "r", "c", *_DIFFICULTY_KEYS}
_OWN_KEYS = {
    "_findings",
    "_reference_queries",
    "_line",
    "_item",
}  # that a quarantined row carries beside its item

_CORRECT = re.compile(r"<(correct|correction)>(.*?)</\1>", re.DOTALL)
_CAPTION = re.compile(r"<timestep>(.*?)</timestep>([^<]*)", re.DOTALL)


@dataclass
class Surroundings:
    """What an item's checks know beside the item.

    Attributes:
        file: name of the annotations file.
        tolerance: seconds by which a segment may run past the end and still be clamped.
        repairs: names of the repairs that may be made.
        videos: where videos are found; None where they are not looked at.
        survey: the whole file, as the first pass saw it.
        leaked: hashes of the base names of the videos of another file that must share none.
        seen: hashes of the ids of the queries that were kept so far.
    """

    file: str
    tolerance: float
    videos: VideoIndex | None
    survey: Survey
    repairs: frozenset[str] = frozenset(REPAIRS)
    leaked: frozenset[int] = frozenset()
    seen: set[int] = field(default_factory=set)


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


def _number(value: Any) -> float | None:
    """A finite number, also where it is written as a string; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _shown(value: Any) -> str:
    """A value as a finding quotes it: short, printable, on one line."""
    text = " ".join(json.dumps(value, ensure_ascii=True, default=str).split())
    return text if len(text) <= 120 else f"{text[:117]}..."


class _Findings(list[Finding]):
    """The findings about one item, or about one query of it."""

    def __init__(self, around: Surroundings, item: int, video: str | None, query: int | None = None) -> None:
        super().__init__()
        self._repairs = around.repairs
        self._where = (item, video, query)

    def add(self, name: str, found: str, action: str | None = None) -> None:
        """Note a finding; an error quarantines."""
        check = CATALOGUE[name]
        default = "quarantined" if check.severity == "error" else "noted"
        item, video, query = self._where
        self.append(Finding(check.code, check.severity, item, video, query, found, action or default))

    def mend(self, name: str, found: str, repaired: str) -> bool:
        """Note a finding that its check's repair mends; where the repair is turned off, it quarantines.

        Returns:
            Whether the repair is to be made.
        """
        check = CATALOGUE[name]
        item, video, query = self._where
        if check.repair in self._repairs:
            self.append(Finding(check.code, check.severity, item, video, query, found, f"repaired: {repaired}"))
            return True
        action = f"quarantined: the repair {check.repair} is turned off"
        self.append(Finding(check.code, "error", item, video, query, found, action))
        return False


def _has_error(findings: list[Finding]) -> bool:
    return any(finding.severity == "error" for finding in findings)


@dataclass
class _ItemFacts:
    """What all queries of an item share, after its own checks."""

    video: str
    duration: float | None
    crop: Segment | None
    captions: list[tuple[float, float, str]]
    references: list[str]
    extra: dict[str, Any]
    findings: _Findings


def _answer_block(text: str) -> str | None:
    """What stands between the first answer tags; None without them."""
    start = text.find("<answer>")
    end = text.find("</answer>", start) if start >= 0 else -1
    return text[start + len("<answer>") : end] if end >= 0 else None


def _captions(think: Any) -> list[tuple[float, float, str]]:
    if not isinstance(think, str):
        return []
    found = ((find_segment(times), text.strip()) for times, text in _CAPTION.findall(think))
    return [(*segment, text) for segment, text in found if segment is not None]


def _check_video(item: dict[str, Any], around: Surroundings, findings: _Findings) -> tuple[str, float | None]:
    """The path that opens (or the item's own where videos are not looked at), and the file's length."""
    video = item.get("video")
    if not isinstance(video, str) or not video.strip():
        findings.add("wrong-type", f"video is {_shown(video)}, not a path")
        return "", None
    if around.videos is None:
        return video, None
    path, by_name = around.videos.find(video)
    if path is None or (by_name and "reroot-video" not in around.repairs):
        findings.add("video-not-found", f"video not found: {_shown(video)}")
        return video, None
    if by_name:
        findings.add("video-rerooted", _shown(video), f"noted: found as {path}")
    info = around.videos.probe(path)
    if isinstance(info, VideoError):
        findings.add("video-unreadable", _shown(str(info)))
        return str(path), None
    return str(path), info.duration


def _check_duration(
    item: dict[str, Any], length: float | None, around: Surroundings, findings: _Findings
) -> float | None:
    """The duration that counts: the annotated one, unless it is missing, wrong, or not the file's."""
    stated = item.get("duration")
    duration = _number(stated)
    if stated is not None and (duration is None or duration <= 0):
        findings.add("duration-invalid", f"duration is {_shown(stated)}", "noted: left out")
        duration = None
    may_fill = length is not None and "fill-duration" in around.repairs
    if duration is None:
        if length is None or not may_fill:
            findings.add("duration-unknown", "no duration", "noted: not trainable")
            return None
        findings.mend("duration-filled", "no duration", f"{length:.3f} s, read from the video")
        return round(length, 3)
    if length is not None and abs(length - duration) > around.tolerance:
        found = f"duration {duration:g} s, video {length:.3f} s"
        if not may_fill:
            findings.add("video-length-differs", found)
            return duration
        findings.mend("video-length-differs", found, f"{length:.3f} s, read from the video")
        return round(length, 3)
    return duration


def _check_crop(item: dict[str, Any], duration: float | None, findings: _Findings) -> Segment | None:
    stated = (item.get("video_start"), item.get("video_end"))
    if stated == (None, None):
        return None
    start = 0.0 if stated[0] is None else _number(stated[0])
    end = (duration if duration is not None else math.inf) if stated[1] is None else _number(stated[1])
    if start is None or end is None or not 0 <= start < end < math.inf:
        findings.add("crop-invalid", f"video_start, video_end are {_shown(list(stated))}", "noted: left out")
        return None
    return (start, end)


def _references(item: dict[str, Any], around: Surroundings) -> list[str]:
    """Answerable queries of the item's video: its own first, then the file's, then those of a quarantined row."""
    video = item.get("video")
    own = [query for _, query, answerable in item_queries(item) if answerable]
    kept = item.get("_reference_queries")
    others = around.survey.references(video) if isinstance(video, str) else []
    carried = [text for text in kept if isinstance(text, str)] if isinstance(kept, list) else []
    return [text for text in dict.fromkeys([*own, *others, *carried]) if text.strip()]


def _check_item(item: dict[str, Any], index: int, around: Surroundings) -> _ItemFacts:
    name = item.get("video")
    findings = _Findings(around, index, name if isinstance(name, str) else None)
    video, length = _check_video(item, around, findings)
    duration = _check_duration(item, length, around, findings)
    crop = _check_crop(item, duration, findings)
    extra = {key: value for key, value in item.items() if key not in _ITEM_KEYS and key not in _OWN_KEYS}
    return _ItemFacts(video, duration, crop, _captions(item.get("think")), _references(item, around), extra, findings)


def _segment_owner(item: dict[str, Any], queries: list[Any]) -> int | None:
    """Index of the answerable query that the item's one timestamp belongs to."""
    answerable = [
        index
        for index, query in enumerate(queries)
        if isinstance(query, dict) and read_boolean(query.get("r")) is True
    ]
    own = [index for index in answerable if queries[index].get("q") == item.get("query_text")]
    if own:
        return own[0]
    return answerable[0] if len(answerable) == 1 else None


def _check_segment(
    item: dict[str, Any], owned: bool, facts: _ItemFacts, around: Surroundings, findings: _Findings
) -> Segment | None:
    stated = item.get("timestamp")
    if stated in (None, [], ""):
        findings.add("segment-missing", f"timestamp is {_shown(stated)}")
        return None
    if not owned:
        findings.add("segment-of-another", f"timestamp {_shown(stated)} belongs to {_shown(item.get('query_text'))}")
        return None
    start, end = map(_number, stated) if isinstance(stated, list) and len(stated) == 2 else (None, None)
    if start is None or end is None:
        findings.add("segment-not-numbers", f"timestamp is {_shown(stated)}")
        return None
    if start < 0:
        findings.add("segment-negative", f"timestamp {_shown(stated)}")
        return None
    if start >= end:
        findings.add("segment-reversed", f"timestamp {_shown(stated)}")
        return None
    if facts.crop is not None and not facts.crop[0] <= start < end <= facts.crop[1]:
        findings.add("segment-outside-crop", f"timestamp {_shown(stated)}, crop {_shown(list(facts.crop))}")
    if facts.duration is None or end <= facts.duration:
        return (start, end)
    overrun = end - facts.duration
    found = f"timestamp {_shown(stated)} in {facts.duration:g} s of video"
    if overrun > around.tolerance or start >= facts.duration:
        findings.add("segment-past-end", f"{found}: {overrun:.2f} s past the end")
        return None
    if not findings.mend("segment-clamped", found, f"end clamped to {facts.duration:g}"):
        return None
    return (start, facts.duration)


def _check_answer(
    query: dict[str, Any],
    segment: Segment | None,
    answerable: bool,
    extra: dict[str, Any],
    findings: _Findings,
) -> str:
    """The ground-truth answer without tags; a correction that stands beside it goes to `extra`."""
    stated = query.get("a")
    if stated is not None and not isinstance(stated, str):
        findings.add("wrong-type", f"a is {_shown(stated)}, not text")
        return ""
    text = stated or ""
    if "<correct" in text and (correction := _CORRECT.search(text)) is not None:
        extra["correction"] = correction[2].strip()
        if correction[1] == "correct":
            findings.mend("correct-tag", "<correct>", "read as <correction>")
        text = _CORRECT.sub("", text)
    block = _answer_block(text)
    answer = (text if block is None else block).strip()
    if not answer:
        if not answerable:
            findings.add("refusal-empty", "the answer is blank")
        elif segment is not None:
            answer = format_segment(segment)
            findings.mend("answer-filled", "the answer is blank", answer)
        return answer
    if block is None:
        findings.mend("answer-untagged", _shown(stated), "taken as the answer")
    said = find_segment(answer)
    was_clamped = any(finding.check.name == "segment-clamped" for finding in findings)
    if answerable and segment is not None and said is not None and said != segment and not was_clamped:
        findings.add("answer-rounded", f"answer {_shown(answer)}, timestamp {_shown(list(segment))}")
    if not answerable and said is not None:
        findings.add("refusal-with-timestamp", _shown(answer))
    return answer


def _check_categories(query: dict[str, Any], extra: dict[str, Any], findings: _Findings) -> list[str]:
    stated = query.get("c")
    names = [stated] if isinstance(stated, str) else stated if isinstance(stated, list) else []
    categories = [name for name in names if isinstance(name, str)]
    if (stated is not None and not isinstance(stated, str | list)) or len(categories) != len(names):
        findings.add("category-unknown", f"c is {_shown(stated)}", "noted: left out")
        extra["c"] = stated
    if unknown := sorted(set(categories) - CATEGORIES):
        findings.add("category-unknown", _shown(unknown), "noted: kept")
    return categories


def _check_difficulty(
    item: dict[str, Any], query: dict[str, Any], extra: dict[str, Any], around: Surroundings, findings: _Findings
) -> Difficulty | None:
    levels = [query.get(key) for key in _DIFFICULTY_KEYS] + [item.get("difficulty")]
    level = next((level for level in levels if level is not None), None)
    if level is None:
        return None
    word = level.strip().lower() if isinstance(level, str) else ""
    if word in _DIFFICULTIES:
        return _DIFFICULTIES[word]
    if word in _OTHER_NAMES and "difficulty-names" in around.repairs:
        findings.add("difficulty-renamed", f"difficulty is {_shown(level)}", f"noted: read as {_OTHER_NAMES[word]}")
        return _OTHER_NAMES[word]
    findings.add("difficulty-unknown", f"difficulty is {_shown(level)}", "noted: left out")
    extra["difficulty"] = level
    return None


def _contrast(queries: list[Any], answerable: bool) -> str | None:
    """The ground-truth answer of the item's first query of the other kind."""
    for other in queries:
        if (
            isinstance(other, dict)
            and read_boolean(other.get("r")) is (not answerable)
            and isinstance(other.get("a"), str)
        ):
            block = _answer_block(other["a"])
            if answer := (_CORRECT.sub("", other["a"]) if block is None else block).strip():
                return answer
    return None


def _check_the_rest_of_the_file(
    sample: Sample, video: str, facts: _ItemFacts, around: Surroundings, findings: _Findings
) -> None:
    """What only the whole file, or another one, can tell: contradictions, leaks and duplicates."""
    if around.survey.contradicts(video, sample.query):
        findings.add("contradiction", _shown(sample.query))
    elif sample.task_type == "refusable" and around.survey.refuses_a_truth(video, sample.query):
        findings.add("refuses-a-true-query", _shown(sample.query))
    if around.leaked and hash64(base_name(video)) in around.leaked:
        findings.add("video-leaks", _shown(video))
    if not _has_error([*facts.findings, *findings]):  # a query that is quarantined anyway is nobody's original
        identity = int(sample.id, 16)
        if identity in around.seen:
            findings.add("duplicate", _shown(sample.query))
        around.seen.add(identity)


def _check_query(
    item: dict[str, Any], index: int, owner: int | None, facts: _ItemFacts, around: Surroundings, item_index: int
) -> tuple[Sample | None, _Findings]:
    name = item.get("video")
    queries: list[Any] = item["GRPO"]
    query = queries[index]
    findings = _Findings(around, item_index, name if isinstance(name, str) else None, index)
    if not isinstance(query, dict):
        findings.add("wrong-type", f"the query is {_shown(query)}, not an object")
        return None, findings
    text, answerable = query.get("q"), read_boolean(query.get("r"))
    if not isinstance(text, str):
        findings.add("wrong-type", f"q is {_shown(text)}, not text")
    if answerable is None:
        findings.add("wrong-type", f"r is {_shown(query.get('r'))}, neither true nor false")
    if not isinstance(text, str) or answerable is None:
        return None, findings
    text = text.strip()
    if not text:
        findings.add("query-empty", "q is blank")
    extra = facts.extra | {key: value for key, value in query.items() if key not in _QUERY_KEYS}
    segment = _check_segment(item, index == owner, facts, around, findings) if answerable else None
    answer = _check_answer(query, segment, answerable, extra, findings)
    if not answerable and not facts.references:
        findings.add("no-references", _shown(text))
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
        contrast_answer=_contrast(queries, answerable),
        reference_queries=facts.references,
        categories=_check_categories(query, extra, findings),
        difficulty=_check_difficulty(item, query, extra, around, findings),
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
    sample = msgspec.convert({key: value for key, value in row.items() if key not in _OWN_KEYS}, Sample)
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


def check_item(raw: Any, index: int, around: Surroundings) -> tuple[list[Finding], list[Outcome]]:
    """Check one item of the file.

    Args:
        raw: the item as read: an annotated moment, a row of riq.jsonl, or anything else that stood there.
        index: of the item in the file.
        around: what is known beside it; what is seen here is added to it.

    Returns:
        Findings about the item as a whole, and the outcome of each of its queries.
    """
    whole = _Findings(around, index, None)
    if isinstance(raw, BrokenLine):
        whole.add("broken-line", f"{raw.problem}: {_shown(raw.text)}")
        return [], [Outcome(None, {"_line": raw.text}, whole)]
    if not isinstance(raw, dict):
        whole.add("not-an-item", _shown(raw))
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
        whole.add("not-an-item", f"GRPO is {_shown(queries)}, no list of queries")
        return [], [Outcome(None, raw, whole)]
    facts = _check_item(item, index, around)
    owner = _segment_owner(item, queries)
    outcomes = []
    for number, query in enumerate(queries):
        sample, findings = _check_query(item, number, owner, facts, around, index)
        if sample is not None and not _has_error([*facts.findings, *findings]):
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
        kept = raw if row is not None else {**item, "GRPO": [query], "_reference_queries": facts.references}
        outcomes.append(Outcome(None, kept, list(findings)))
    return list(facts.findings), outcomes
