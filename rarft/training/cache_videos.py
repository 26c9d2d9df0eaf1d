"""Filling the frame cache ahead of a training run, with the very settings of that run."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rarft.annotations.schema import read_samples
from rarft.errors import InputError, input_name
from rarft.progress import progress
from rarft.segments import Segment
from rarft.training import config as configuration
from rarft.video.cache import FrameCache
from rarft.video.reader import VideoError


def _videos(settings: dict[str, Any]) -> list[tuple[str, Segment | None]]:
    """Each video, or crop of one, that training or its evaluations read."""
    wanted: dict[tuple[str, Segment | None], None] = {}
    for flag in ("train_data_path", "eval_data_path"):
        if settings[flag]:
            with input_name(f"--{flag}"):
                samples = read_samples(settings[flag])
            for sample in samples:
                wanted[(sample.video, sample.crop)] = None
    return list(wanted)


def cache_videos(arguments: list[str]) -> str:
    """Decode what is not in the cache yet; returns a line that says how many there were.

    Args:
        arguments: the flags of `rarft train`, of which data, sampling and cache are looked at.

    Raises:
        InputError: settings or data that cannot be used.
    """
    settings = configuration.parse(arguments, anywhere=True)
    if not settings["frame_cache"]:
        raise InputError("--frame_cache is missing; give the folder that training will be given")
    if not settings["train_data_path"]:
        raise InputError("--train_data_path is missing; give the riq.jsonl of `rarft validate`")
    sampling = configuration.frame_sampling(settings)
    cache = FrameCache(Path(settings["frame_cache"]), settings["frame_cache_gb"] * 1e9)
    videos = _videos(settings)

    def read(video: tuple[str, Segment | None]) -> str | None:
        try:
            cache.read(video[0], sampling, video[1])
        except VideoError as error:
            return str(error)
        return None

    def results() -> Iterator[str | None]:
        with ThreadPoolExecutor(max(1, settings["decode_workers"])) as pool:
            yield from pool.map(read, videos)

    failed = [error for error in progress(results(), "caching", total=len(videos), unit=" videos") if error]
    for error in failed:
        print(f"cache-videos: skipped: {error}", flush=True)
    decoded = len(videos) - cache.hits - len(failed)
    return f"{len(videos)} videos: {decoded} decoded, {cache.hits} there already, {len(failed)} unreadable"
