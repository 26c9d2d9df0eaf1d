"""Filling of the frame cache before a training run, with the settings of that run."""

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rarft.annotations.schema import read_samples
from rarft.errors import InputError, input_name
from rarft.progress import progress
from rarft.segments import Segment
from rarft.training.config import frame_sampling
from rarft.training.preflight import check_train_data_given
from rarft.training.settings_parser import parse_settings
from rarft.video.cache import FrameCache
from rarft.video.reader import VideoError

logger = logging.getLogger(__name__)


def _list_videos(settings: dict[str, Any]) -> list[tuple[str, Segment | None]]:
    """Return each video, or crop of one, that training and its evaluations read."""
    videos: dict[tuple[str, Segment | None], None] = {}
    for name in ("train_data_path", "eval_data_path"):
        if settings[name]:
            with input_name(f"--{name}"):
                samples = read_samples(settings[name])
            videos |= {(sample.video, sample.crop): None for sample in samples}
    return list(videos)


def cache_videos(arguments: list[str]) -> str:
    """Decode the videos that are not in the cache; return a line with their numbers.

    Args:
        arguments: Flags of `rarft train`. Those of data, sampling and cache are used.

    Raises:
        InputError: Settings or data are invalid.
    """
    settings = parse_settings(arguments, check_gpus=False)
    if not settings["frame_cache"]:
        raise InputError("--frame_cache: is missing; pass the folder that training will use")
    check_train_data_given(settings)
    sampling = frame_sampling(settings)
    cache = FrameCache(Path(settings["frame_cache"]), settings["frame_cache_gb"] * 1e9)
    videos = _list_videos(settings)

    def read(video: tuple[str, Segment | None]) -> str | None:
        try:
            cache.read(video[0], sampling, video[1])
        except VideoError as error:
            return str(error)
        return None

    def results() -> Iterator[str | None]:
        with ThreadPoolExecutor(max(1, settings["decode_workers"])) as pool:
            yield from pool.map(read, videos)

    errors = [error for error in progress(results(), "caching", total=len(videos), unit=" videos") if error]
    for error in errors:
        logger.warning("video skipped: %s", error)
    decoded = len(videos) - cache.hits - len(errors)
    return f"{len(videos)} videos: {decoded} decoded, {cache.hits} cached before, {len(errors)} unreadable" + (
        f", {cache.not_stored} not stored, since the folder is full" if cache.not_stored else ""
    )
