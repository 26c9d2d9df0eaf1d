"""Durations of videos from a file: JSON, or CSV as Charades publishes it."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rarft.annotations.parsing import base_name, parse_number
from rarft.annotations.reader import open_text
from rarft.errors import InputError
from rarft.video.reader import VIDEO_SUFFIXES

_VIDEO_COLUMNS = ("id", "video", "vid", "video_id", "video_name", "name")
_DURATION_COLUMNS = ("duration", "length", "seconds", "video_duration")


def video_key(video: str) -> str:
    """Return the name of a video without folders and suffix."""
    name = base_name(video)
    suffix = Path(name).suffix
    return name.removesuffix(suffix) if suffix.lower() in VIDEO_SUFFIXES else name


def read_durations(path: Path) -> dict[str, float]:
    """Return the durations in a file, in seconds by the name of the video without folders and suffix.

    The file is a JSON object of `VIDEO: SECONDS` or `VIDEO: {"duration": SECONDS}`, or CSV with a column for the video
    (`id`, `video`, ...) and one for its duration (`duration`, `length`, ...).

    Raises:
        InputError: The file is neither, or a duration is not a positive number.
    """
    with open_text(path) as file:
        text = file.read()
    durations: dict[str, float] = {}
    entries = _json_entries(text, path) if text.lstrip().startswith("{") else _csv_entries(text, path)
    for location, video, value in entries:
        seconds = parse_number(value)
        if seconds is None or seconds <= 0:
            raise InputError(f"{path}, {location}: {value!r} is not a duration in seconds; fix it")
        if durations.setdefault(video_key(video), seconds) != seconds:
            raise InputError(f"{path}, {location}: {video} has another duration before; remove one")
    return durations


def _json_entries(text: str, path: Path) -> Iterable[tuple[str, str, Any]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise InputError(f"{path}: invalid JSON ({error}); fix it or copy it again") from error
    for video, value in content.items():
        yield video, video, value.get("duration") if isinstance(value, dict) else value


def _csv_entries(text: str, path: Path) -> Iterable[tuple[str, str, Any]]:
    rows = csv.DictReader(io.StringIO(text, newline=""))
    names = rows.fieldnames or []
    video = next((name for name in names if name.strip().lower() in _VIDEO_COLUMNS), None)
    duration = next((name for name in names if name.strip().lower() in _DURATION_COLUMNS), None)
    if video is None or duration is None:
        expected = 'a JSON object {"VIDEO": SECONDS}, or CSV with the columns id and length'
        raise InputError(f"{path}: contains no durations; use {expected}")
    for row in rows:
        yield f"line {rows.line_num}", row[video] or "", row[duration]
