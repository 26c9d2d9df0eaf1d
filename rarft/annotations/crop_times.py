"""Times that count from the start of a crop, and their conversion to times of the whole video.

Some published files give each item the length of its crop as `duration`, and a timestamp that counts from the start of
the crop. If the video's file contains only the crop, these times are already those of the file.
"""

from typing import Any

from rarft.annotations.parsing import extract_tag, parse_number
from rarft.annotations.times import parse_segments
from rarft.completion import format_segments
from rarft.errors import InputError
from rarft.segments import Segment

CROP_TIMES = ("auto", "absolute", "relative")

_LENGTH_TOLERANCE_S = 0.5  # between an annotated duration and the length of the crop
_FILE_TOLERANCE_S = 1.0  # between the length of a file and that of the crop
_NEARLY_ALL = 0.95  # fraction of a file's items with a crop


def is_length_of(duration: float, crop: Segment) -> bool:
    """Check whether an annotated duration is the length of the crop."""
    return abs(duration - (crop[1] - crop[0])) <= _LENGTH_TOLERANCE_S


def contains_only(crop: Segment, file_duration: float) -> bool:
    """Check whether a file of this duration contains only the crop, instead of the whole video."""
    length = crop[1] - crop[0]
    return abs(file_duration - length) <= _FILE_TOLERANCE_S and file_duration < crop[1] - _FILE_TOLERANCE_S


def shift(segment: Segment, start: float) -> Segment:
    """Return a segment that counts from the start of a crop in seconds of the whole video, in milliseconds."""
    return round(segment[0] + start, 3), round(segment[1] + start, 3)


def annotated_crop(item: dict[str, Any]) -> Segment | None:
    """Return the crop of an item; None unless both of its ends are given, and in order."""
    start, end = parse_number(item.get("video_start")), parse_number(item.get("video_end"))
    return (start, end) if start is not None and end is not None and 0 <= start < end else None


class CropEvidence:
    """Numbers of a file's items with a crop, and of those whose duration is the length of the crop."""

    def __init__(self) -> None:
        self.with_crop = self.with_crop_length = 0

    def add(self, item: Any) -> None:
        """Add an item. A crop from the start of the video and a row of riq.jsonl are not evidence."""
        if not isinstance(item, dict) or "GRPO" not in item:
            return
        crop, duration = annotated_crop(item), parse_number(item.get("duration"))
        if crop is not None and duration is not None and crop[0] > _LENGTH_TOLERANCE_S:
            self.with_crop += 1
            self.with_crop_length += is_length_of(duration, crop)

    def is_relative(self, crop_times: str) -> bool:
        """Check whether the times of items with a crop count from its start.

        Args:
            crop_times: One of `CROP_TIMES`; `auto` decides by the evidence.

        Raises:
            InputError: The items differ.
        """
        if crop_times != "auto":
            return crop_times == "relative"
        share = self.with_crop_length / max(1, self.with_crop)
        if 1 - _NEARLY_ALL < share < _NEARLY_ALL:
            raise InputError(
                f"{self.with_crop_length} of {self.with_crop} items with a crop have its length as their duration, so "
                "it is unclear whether times count from the start of the crop; set --crop-times relative or absolute"
            )
        return share >= _NEARLY_ALL


def to_video_times(item: dict[str, Any], start: float) -> dict[str, Any]:
    """Return an item with times of the whole video, and without its duration, which is that of the crop."""
    segments = parse_segments(item.get("timestamp"))
    timestamp = item.get("timestamp")
    if segments:
        shifted = [list(shift(segment, start)) for segment in segments]
        timestamp = shifted[0] if len(shifted) == 1 else shifted
    queries = [_shift_answer(query, start) for query in item["GRPO"]]
    return {**item, "timestamp": timestamp, "duration": None, "GRPO": queries}


def _shift_answer(query: Any, start: float) -> Any:
    """Return a query with the times of its answer shifted."""
    if not isinstance(query, dict) or not isinstance(answer := query.get("a"), str):
        return query
    block = extract_tag(answer, "answer")
    times = answer if block is None else block
    segments = parse_segments(times)
    if not segments:
        return query
    shifted = format_segments(shift(segment, start) for segment in segments)
    return {**query, "a": answer.replace(times, shifted, 1)}
