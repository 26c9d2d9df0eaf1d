"""The checks of what all queries of an item share: its video, duration, crop, captions and references."""

import math
from dataclasses import dataclass
from typing import Any

from rarft.annotations.context import FindingList, ValidationContext, number, shown
from rarft.annotations.encoding import has_only_finite_numbers
from rarft.annotations.file_index import item_queries
from rarft.completion import find_segment
from rarft.segments import Segment
from rarft.video.probe import VideoError, VideoInfo

# Fields of the format; the others are kept as they are.
_ITEM_KEYS = frozenset(
    {"video", "query_text", "timestamp", "duration", "video_start", "video_end", "think", "GRPO", "difficulty"}
)
# Fields that a quarantined row carries beside its item.
OWN_KEYS = frozenset({"_findings", "_reference_queries", "_contrast_answer", "_timestamp", "_line", "_item"})


@dataclass
class ItemFacts:
    """What all queries of an item share, after its own checks."""

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
    item: dict[str, Any], around: ValidationContext, findings: FindingList
) -> tuple[str, VideoInfo | None]:
    """The path that opens (or the item's own where videos are not looked at), and what the file is."""
    video = item.get("video")
    if not isinstance(video, str) or not video.strip():
        findings.add("wrong-type", f"video is {shown(video)}, not a path")
        return "", None
    if around.videos is None:
        return video, None
    found, by_name = around.videos.find(video)
    if not found or (by_name and "reroot-video" not in around.repairs):
        findings.add("video-not-found", f"video not found: {shown(video)}")
        return video, None
    if len(found) > 1:
        findings.add("video-ambiguous", f"{shown(video)} may be {' or '.join(found[:3])}")
        return video, None
    path = found[0]
    if by_name:
        findings.add("video-rerooted", shown(video), f"noted: found as {path}")
    info = around.videos.probe(path)
    if isinstance(info, VideoError):
        findings.add("video-unreadable", shown(str(info)))
        return path, None
    return path, info


def _check_duration(
    item: dict[str, Any], length: float | None, around: ValidationContext, findings: FindingList
) -> float | None:
    """The duration that counts: the annotated one, unless it is missing, wrong, or not the file's."""
    stated = item.get("duration")
    duration = number(stated)
    if stated is not None and (duration is None or duration <= 0):
        findings.add("duration-invalid", f"duration is {shown(stated)}", "noted: left out")
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


def _check_crop(
    item: dict[str, Any], duration: float | None, video: VideoInfo | None, findings: FindingList
) -> Segment | None:
    stated = (item.get("video_start"), item.get("video_end"))
    if stated == (None, None):
        _check_frames(None, video, findings)
        return None
    start = 0.0 if stated[0] is None else number(stated[0])
    end = (duration if duration is not None else math.inf) if stated[1] is None else number(stated[1])
    is_part = start is not None and end is not None and 0 <= start < end < math.inf
    if not is_part or start is None or end is None or (duration is not None and start >= duration):
        findings.add("crop-invalid", f"video_start, video_end are {shown(list(stated))}", "noted: left out")
        return None
    _check_frames((start, end), video, findings)
    return (start, end)


def _check_frames(crop: Segment | None, video: VideoInfo | None, findings: FindingList) -> None:
    """A model is shown frames in pairs: at least two must be there."""
    if video is None:
        return
    first, last = 0, video.frames - 1
    if crop is not None:
        first, last = math.ceil(crop[0] * video.fps), min(last, math.floor(crop[1] * video.fps))
    if last - first + 1 < 2:
        findings.add("video-too-short", f"{max(0, last - first + 1)} frames to be shown")


def _references(item: dict[str, Any], around: ValidationContext) -> list[str]:
    """Answerable queries of the item's video: its own first, then the file's, then those of a quarantined row."""
    video = item.get("video")
    own = [query for _, query, answerable in item_queries(item) if answerable]
    kept = item.get("_reference_queries")
    others = around.survey.references(video) if isinstance(video, str) else []
    carried = [text for text in kept if isinstance(text, str)] if isinstance(kept, list) else []
    return [text for text in dict.fromkeys([*own, *others, *carried]) if text.strip()]


def check_item_facts(item: dict[str, Any], index: int, around: ValidationContext) -> ItemFacts:
    """Check what an item's queries share.

    Args:
        item: an annotated moment whose `GRPO` is a list.
        index: of the item in the file.
        around: what is known beside it.
    """
    name = item.get("video")
    findings = FindingList(around, index, name if isinstance(name, str) else None)
    video, info = _check_video(item, around, findings)
    duration = _check_duration(item, info.duration if info else None, around, findings)
    crop = _check_crop(item, duration, info, findings)
    extra = {key: value for key, value in item.items() if key not in _ITEM_KEYS and key not in OWN_KEYS}
    if crop is None:  # not to be lost where they are no crop
        extra |= {key: item[key] for key in ("video_start", "video_end") if item.get(key) is not None}
    if extra and not has_only_finite_numbers(extra):
        findings.add("number-not-json", "NaN or Infinity in an extra field", "noted: written as null")
    return ItemFacts(video, duration, crop, _captions(item.get("think")), _references(item, around), extra, findings)
