"""Checks of what all queries of an item share: video, duration, crop, captions and reference queries."""

import math
from dataclasses import dataclass
from typing import Any

from rarft.annotations.context import FindingList, ValidationContext
from rarft.annotations.crop_times import annotated_crop, contains_only, is_length_of, shift, to_video_times
from rarft.annotations.encoding import has_only_finite_numbers
from rarft.annotations.parsing import base_name, item_queries, parse_number, truncate_repr
from rarft.annotations.schema import VideoFile
from rarft.annotations.times import parse_segments
from rarft.annotations.videos import VideoInspector, item_crop
from rarft.segments import Segment
from rarft.video.inspection import Inspection
from rarft.video.reader import VideoInfo
from rarft.video.sampling import PATCH

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
    video_file: VideoFile | None
    item: dict[str, Any]  # in times of the video


def _captions(think: Any) -> list[tuple[float, float, str]]:
    if not isinstance(think, str):
        return []
    captions = []
    for part in think.split("<timestep>")[1:]:
        times, closed, text = part.partition("</timestep>")
        if closed and (segments := parse_segments(times)):
            captions.append((*segments[0], text.partition("<")[0].strip()))
    return captions


def _find_video(
    item: dict[str, Any], context: ValidationContext, findings: FindingList
) -> tuple[str, Inspection | None, VideoFile | None]:
    """Return the video's path, inspection and file; only the item's own path if videos are not opened."""
    video = item.get("video")
    if not isinstance(video, str) or not video.strip():
        findings.add("wrong-type", f"video is {truncate_repr(video)}, not a path")
        return "", None, None
    if context.videos is None:
        return video, None, None
    paths, by_name = context.videos.files.find(video)
    if not paths or (by_name and "find-video-by-name" not in context.repairs):
        hint = "" if paths else _similar(video, context.videos)
        findings.add("video-not-found", f"video not found: {truncate_repr(video)}{hint}")
        return video, None, None
    if len(paths) > 1:
        findings.add("video-ambiguous", f"{truncate_repr(video)} may be {' or '.join(paths[:3])}")
        return video, None, None
    path = paths[0]
    if by_name:
        findings.add("video-found-by-name", truncate_repr(video), f"noted: using {path}")
    inspection, file = context.videos.inspect(path, item)
    return path, inspection, file


def _similar(video: str, videos: VideoInspector) -> str:
    """Return a hint at files whose name is that of a video, but for its spelling."""
    names = videos.files.similar(video)
    if base_name(video) in names:
        return "; it is a broken link"
    written = " and ".join(map(truncate_repr, names[:3]))
    verb, pronoun = ("is", "which is") if len(names) == 1 else ("are", "which are")
    return f"; there {verb} {written}, {pronoun} written differently" if names else ""


def _check_inspection(path: str, inspection: Inspection, tolerance: float, findings: FindingList) -> None:
    """Add findings about a video's file."""
    if inspection.kind:
        findings.add(f"video-{inspection.kind}", f"{truncate_repr(path)}: {inspection.problem}")
    info = inspection.info
    if info is None:
        return
    start, end, corrupt = info.missing_start, info.missing_end, info.corrupt_packets
    missing = [f"the first {start:.2f} s"] * (start > tolerance) + [f"the last {end:.2f} s"] * (end > tolerance)
    if missing:
        findings.add("video-truncated", f"{' and '.join(missing)} of {start + info.duration + end:.2f} s are missing")
    elif not inspection.kind and (inspection.damaged or corrupt or start or end):
        parts = {
            f"sampled frames with errors: {inspection.damaged}": inspection.damaged,
            f"incomplete packets: {corrupt}": corrupt,
            f"missing: {start + end:.2f} s": start + end,
        }
        findings.add("video-damaged", ", ".join(part for part, count in parts.items() if count))
    if info.is_variable:
        findings.add("video-variable-rate", f"{info.fps:.2f} frames per second on average")
    if info.rotation:
        findings.add("video-rotated", f"{info.rotation} degrees")
    if info.hdr:
        findings.add("video-hdr", info.hdr)
    if min(info.height, info.width) < PATCH and not inspection.kind:
        findings.add("video-small", f"frames of {info.width}x{info.height}")


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
        count = max(0, last - first + 1)
        findings.add("video-too-short", f"{count} {'frame' if count == 1 else 'frames'} to show")


def _check_crop_times(
    item: dict[str, Any], video: VideoInfo | None, context: ValidationContext, findings: FindingList
) -> tuple[dict[str, Any], float]:
    """Return an item in times of the video, and by how many seconds they differ from those of the item."""
    crop = annotated_crop(item)
    if crop is None or not context.has_relative_times:
        return item, 0.0
    duration = parse_number(item.get("duration"))
    found = f"timestamp {truncate_repr(item.get('timestamp'))}, crop {truncate_repr(list(crop))}"
    if context.crop_times == "auto" and (duration is None or not is_length_of(duration, crop)):
        findings.add("crop-times-unclear", f"{found}, duration {truncate_repr(item.get('duration'))}")
        return item, 0.0
    if video is not None and contains_only(crop, video.duration):
        if not findings.repair("crop-is-file", f"{found}, file of {video.duration:.3f} s", "crop dropped"):
            return item, 0.0
        return {**item, "video_start": None, "video_end": None}, 0.0
    shifted = to_video_times(item, crop[0])
    if not findings.repair("crop-times-relative", found, f"timestamp {truncate_repr(shifted['timestamp'])}"):
        return item, 0.0
    return shifted, crop[0]


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
    video, inspection, file = _find_video(item, context, findings)
    info = inspection.info if inspection else None
    original = item
    item, offset = _check_crop_times(item, info, context, findings)
    if inspection is not None and context.videos is not None:
        if item_crop(item) != item_crop(original):
            inspection, file = context.videos.inspect(video, item)
        _check_inspection(video, inspection, context.tolerance, findings)
    duration = _check_duration(item, info.duration if info else None, context, findings)
    crop = _check_crop(item, duration, info, findings)
    extra = {key: value for key, value in item.items() if key not in _ITEM_KEYS and key not in QUARANTINE_KEYS}
    if crop is None:  # keep invalid values
        extra |= {key: item[key] for key in ("video_start", "video_end") if item.get(key) is not None}
    if extra and not has_only_finite_numbers(extra):
        findings.add("non-finite-number", "NaN or Infinity in an extra field", "noted: written as null")
    captions = _captions(item.get("think"))
    if offset:
        captions = [(*shift((start, end), offset), text) for start, end, text in captions]
    return ItemFacts(video, duration, crop, captions, _references(item, context), extra, findings, file, item)
