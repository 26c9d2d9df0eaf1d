"""Convert annotations of another format to the RIQ format.

Each query becomes an item of JSON Lines. Values are copied as they are, since validation checks them. A record that
the format cannot read is written with the reason, and validation quarantines it, so that nothing is lost.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from rarft.annotations.crop_times import contains_only, is_length_of, shift
from rarft.annotations.encoding import ascii_json
from rarft.annotations.formats.durations import video_key
from rarft.annotations.formats.record import Query, Record, UnreadablePart
from rarft.annotations.formats.records import read_records
from rarft.annotations.formats.registry import Format
from rarft.annotations.parsing import parse_number, truncate_repr
from rarft.annotations.reader import MalformedLine
from rarft.annotations.times import parse_segments
from rarft.annotations.video_files import VideoFiles
from rarft.completion import format_segments
from rarft.progress import progress
from rarft.segments import Segment
from rarft.video.reader import VideoError, probe

CROP_TO_VIDEO = "crop-times-to-video-times"
FILE_IS_CROP = "file-is-crop"
_MAX_REASONS = 3


@dataclass
class Conversion:
    """Counts of a conversion.

    Attributes:
        format: Name of the format.
        counts: Numbers of records, of queries by kind, and of conversions.
        reasons: Why the first unreadable records are.
    """

    format: str
    counts: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)


class Converter:
    """Converts the records of one file."""

    def __init__(
        self, source: Format, file: str, durations: Mapping[str, float], videos: VideoFiles | None = None
    ) -> None:
        """
        Args:
            source: Format of the file.
            file: Name of the file, for the provenance.
            durations: Durations by `video_key`, for records without one.
            videos: Files of the videos; None to keep the names of videos.
        """
        self.result = Conversion(source.name)
        self._source, self._file, self._durations, self._videos = source, file, durations, videos

    def items(self, record: Record) -> Iterator[dict[str, Any]]:
        """Yield the items of a record, and count them."""
        self.result.counts["records"] += 1
        try:
            if isinstance(record.value, MalformedLine):
                raise ValueError(record.value.problem)
            parts = list(self._source.read(record))
        except Exception as error:  # the user's own format may raise anything
            reason = str(error) if type(error) is ValueError else f"{type(error).__name__}: {error}"
            value = record.value.text if isinstance(record.value, MalformedLine) else record.value
            parts = [UnreadablePart(reason, value)]
        if not parts:
            self.result.counts["without_queries"] += 1
        for number, part in enumerate(parts):
            provenance = {"format": self._source.name, "file": self._file, "record": record.key}
            if len(parts) > 1:
                provenance["query"] = number
            if isinstance(part, Query):
                try:
                    yield self._item(part, provenance)
                    continue
                except ValueError as error:
                    part = UnreadablePart(str(error), record.value)
            yield self._unreadable(part, provenance)

    def _unreadable(self, part: UnreadablePart, provenance: dict[str, Any]) -> dict[str, Any]:
        self.result.counts["unreadable"] += 1
        if len(self.result.reasons) < _MAX_REASONS:
            self.result.reasons.append(f"record {provenance['record']}: {part.reason}: {truncate_repr(part.value)}")
        return {"unreadable": part.reason, "record": part.value, "provenance": provenance}

    def _item(self, query: Query, provenance: dict[str, Any]) -> dict[str, Any]:
        """Return the item of a query; raise a `ValueError` if it is unknown what its times count from."""
        counts = self.result.counts
        video, path = self._find(query.video)
        segments, duration, crop = list(query.segments), query.duration, query.crop
        if crop is not None and query.is_relative:
            name, segments, duration, crop = _to_video_times(query, crop, path)
            counts[name] += 1
            original = {"segments": list(query.segments), "duration": query.duration, "crop": list(query.crop or ())}
            provenance |= {"conversion": name, "original": original}
        if duration is None and isinstance(query.video, str):
            duration = self._durations.get(video_key(query.video))
        if duration is None:
            counts["without_duration"] += 1
        counts["answerable" if query.answerable else "refusable"] += 1
        counts["several_segments"] += len(segments) > 1
        if query.fields:
            provenance["fields"] = dict(query.fields)
        answer = query.answer or _answer(segments)
        item: dict[str, Any] = {
            "video": video,
            "query_text": query.text,
            "timestamp": segments[0] if len(segments) == 1 else segments,
            "duration": duration,
            "GRPO": [{"q": query.text, "a": f"<answer>{answer}</answer>" if answer else "", "r": query.answerable}],
            "provenance": provenance,
        }
        if crop is not None:
            item["video_start"], item["video_end"] = crop
        return item

    def _find(self, video: Any) -> tuple[Any, str | None]:
        """Return what to call a video, and its path if its file is found."""
        if self._videos is None or not isinstance(video, str):
            return video, None
        paths = self._videos.find(video).paths
        if len(paths) != 1:
            self.result.counts["video_not_found"] += 1
            return video, None
        return paths[0], paths[0]


def _segment(value: Any) -> Segment | None:
    """Return a pair of times; None for anything else."""
    segments = parse_segments(value)
    return segments[0] if segments is not None and len(segments) == 1 else None


def _answer(segments: list[Any]) -> str:
    """Return segments as completions write them; empty if one is not a pair of numbers."""
    parsed = [segment for value in segments if (segment := _segment(value)) is not None]
    return format_segments(parsed) if len(parsed) == len(segments) else ""


def _to_video_times(
    query: Query, values: tuple[Any, Any], path: str | None
) -> tuple[str, list[Any], float | None, tuple[Any, Any] | None]:
    """Return the conversion's name, and segments, duration and crop in times of the video's file."""
    crop, duration = _segment(values), parse_number(query.duration)
    if crop is None or not 0 <= crop[0] < crop[1]:
        raise ValueError(f"the crop is {truncate_repr(list(values))}, which times count from")
    if duration is not None and not is_length_of(duration, crop):
        raise ValueError(f"duration {duration:g} is not the length of the crop {list(crop)}, which times count from")
    if path is not None and contains_only(crop, _file_duration(path)):
        return FILE_IS_CROP, list(query.segments), duration, None
    parsed = [(value, _segment(value)) for value in query.segments]
    segments = [value if segment is None else list(shift(segment, crop[0])) for value, segment in parsed]
    return CROP_TO_VIDEO, segments, None, crop


def _file_duration(path: str) -> float:
    """Return the duration of a file; infinity if it cannot be read, which validation reports."""
    try:
        return probe(path).duration
    except VideoError:
        return float("inf")


def convert(path: Path, out: BinaryIO, converter: Converter) -> Conversion:
    """Convert a file, and write its items to `out` as JSON Lines.

    Raises:
        InputError: The file cannot be read.
    """
    for record in progress(read_records(path), f"converting {path.name}", unit=" records"):
        for item in converter.items(record):
            out.write(ascii_json(item) + b"\n")
    return converter.result


def summary(result: Conversion) -> str:
    """Return the counts of a conversion as a few lines of text."""
    counts = result.counts
    queries = counts["answerable"] + counts["refusable"]
    lines = [
        f"{counts['records']} records in the format {result.format}: {queries} queries, {counts['answerable']} "
        f"answerable, {counts['refusable']} refusable, {counts['unreadable']} unreadable"
    ]
    notes = {
        "several_segments": "with several segments",
        CROP_TO_VIDEO: "with a crop: times converted to times of the video",
        FILE_IS_CROP: "with a crop that is the whole file: crop dropped",
        "without_queries": "records without queries",
        "without_duration": "without a duration: validation reads it from the video",
        "video_not_found": "whose video was not found",
    }
    lines += [f"  {counts[name]} {text}" for name, text in notes.items() if counts[name]]
    lines += [f"  unreadable: {reason}" for reason in result.reasons]
    if more := counts["unreadable"] - len(result.reasons):
        lines.append(f"  and {more} more unreadable; validation quarantines them")
    return "\n".join(lines)
