"""Checks of what all queries of an item share: video, duration, crop, captions and reference queries."""

import math
from dataclasses import dataclass
from typing import Any

from rarft.annotations.context import FindingList, ValidationContext
from rarft.annotations.encoding import has_only_finite_numbers
from rarft.annotations.parsing import item_queries, parse_number, truncate_repr
from rarft.completion import find_segment
from rarft.segments import Segment
from rarft.video.reader import VideoError, VideoInfo

# Fields of the format. Others are kept as extra fields.
_ITEM_KEYS = frozenset(
    {"video", "query_text", "timestamp", "duration", "video_start", "video_end", "think", "GRPO", "difficulty"}
)
# Fields that a quarantined row has in addition to those of its item.
QUARANTINE_KEYS = frozenset({"_findings", "_reference_queries", "_contrast_answer", "_timestamp", "_line", "_item"})


@dataclass
class ItemFacts:
    """Checked values that all queries of an item share."""

    video: str
    duration: float | None
    crop: Segment | None
    captions: list[tuple[float, float, str]]
    references: list[str]
    extra: dict[str, Any]
    findings: FindingList


def _captions(think: Any) -> list[tuple[float, float, str]]:
    if not isinstance(think, str):
        return []
    captions = []
    for part in think.split("<timestep>")[1:]:
        times, closed, text = part.partition("</timestep>")
        if closed and (segment := find_segment(times)) is not None:
            captions.append((*segment, text.partition("<")[0].strip()))
    return captions


def _check_video(
    item: dict[str, Any], context: ValidationContext, findings: FindingList
) -> tuple[str, VideoInfo | None]:
    """Return the path of the video's file and its properties; the item's own path if videos are not opened."""
    video = item.get("video")
    if not isinstance(video, str) or not video.strip():
        findings.add("wrong-type", f"video is {truncate_repr(video)}, not a path")
        return "", None
    if context.videos is None:
        return video, None
    paths, by_name = context.videos.find(video)
    if not paths or (by_name and "find-video-by-name" not in context.repairs):
        findings.add("video-not-found", f"video not found: {truncate_repr(video)}")
        return video, None
    if len(paths) > 1:
        findings.add("video-ambiguous", f"{truncate_repr(video)} may be {' or '.join(paths[:3])}")
        return video, None
    path = paths[0]
    if by_name:
        findings.add("video-found-by-name", truncate_repr(video), f"noted: using {path}")
    info = context.videos.probe(path)
    if isinstance(info, VideoError):
        findings.add("video-unreadable", truncate_repr(str(info)))
        return path, None
    return path, info


def _check_duration(
    item: dict[str, Any], video_duration: float | None, context: ValidationContext, findings: FindingList
) -> float | None:
    """Return the annotated duration, or the video's if the annotated one is missing, invalid or different."""
    value = item.get("duration")
    duration = parse_number(value)
    if value is not None and (duration is None or duration <= 0):
        findings.add("duration-invalid", f"duration is {truncate_repr(value)}", "noted: dropped")
        duration = None
    may_fill = video_duration is not None and "fill-duration" in context.repairs
    if duration is None:
        if video_duration is None or not may_fill:
            findings.add("duration-unknown", "no duration", "noted: not trainable")
            return None
        findings.repair("duration-filled", "no duration", f"{video_duration:.3f} s from the video")
        return round(video_duration, 3)
    if video_duration is not None and abs(video_duration - duration) > context.tolerance:
        found = f"duration {duration:g} s, video {video_duration:.3f} s"
        if not may_fill:
            findings.add("duration-mismatch", found)
            return duration
        findings.repair("duration-mismatch", found, f"{video_duration:.3f} s from the video")
        return round(video_duration, 3)
    return duration


def _check_crop(
    item: dict[str, Any], duration: float | None, video: VideoInfo | None, findings: FindingList
) -> Segment | None:
    values = (item.get("video_start"), item.get("video_end"))
    if values == (None, None):
        _check_frames(None, video, findings)
        return None
    start = 0.0 if values[0] is None else parse_number(values[0])
    end = (duration if duration is not None else math.inf) if values[1] is None else parse_number(values[1])
    is_part = start is not None and end is not None and 0 <= start < end < math.inf
    if not is_part or start is None or end is None or (duration is not None and start >= duration):
        findings.add("crop-invalid", f"video_start, video_end are {truncate_repr(list(values))}", "noted: dropped")
        return None
    _check_frames((start, end), video, findings)
    return (start, end)


def _check_frames(crop: Segment | None, video: VideoInfo | None, findings: FindingList) -> None:
    """Check that there are at least two frames, since a model reads frames in pairs."""
    if video is None:
        return
    first, last = 0, video.frames - 1
    if crop is not None:
        first, last = math.ceil(crop[0] * video.fps), min(last, math.floor(crop[1] * video.fps))
    if last - first + 1 < 2:
        findings.add("video-too-short", f"{max(0, last - first + 1)} frames to show")


def _references(item: dict[str, Any], context: ValidationContext) -> list[str]:
    """Return the video's answerable queries: the item's own, then the file's, then those of a quarantined row."""
    video = item.get("video")
    own = [query for _, query, answerable in item_queries(item) if answerable]
    others = context.index.references(video) if isinstance(video, str) else []
    quarantined = item.get("_reference_queries")
    kept = [text for text in quarantined if isinstance(text, str)] if isinstance(quarantined, list) else []
    return [text for text in dict.fromkeys([*own, *others, *kept]) if text.strip()]


def check_item_facts(item: dict[str, Any], index: int, context: ValidationContext) -> ItemFacts:
    """Check what the queries of an item share.

    Args:
        item: Annotated moment whose `GRPO` is a list.
        index: Index of the item in the file.
        context: Context of the check.
    """
    name = item.get("video")
    findings = FindingList(context, index, name if isinstance(name, str) else None)
    video, info = _check_video(item, context, findings)
    duration = _check_duration(item, info.duration if info else None, context, findings)
    crop = _check_crop(item, duration, info, findings)
    extra = {key: value for key, value in item.items() if key not in _ITEM_KEYS and key not in QUARANTINE_KEYS}
    if crop is None:  # keep invalid values
        extra |= {key: item[key] for key in ("video_start", "video_end") if item.get(key) is not None}
    if extra and not has_only_finite_numbers(extra):
        findings.add("non-finite-number", "NaN or Infinity in an extra field", "noted: written as null")
    return ItemFacts(video, duration, crop, _captions(item.get("think")), _references(item, context), extra, findings)
