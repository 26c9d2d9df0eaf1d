"""Filling of the frame cache before a training run, with the settings of that run."""

import logging
from concurrent.futures import ThreadPoolExecutor

from rarft.annotations.schema import read_samples
from rarft.errors import InputError, input_name
from rarft.progress import progress
from rarft.segments import Segment
from rarft.storage.files import local_path
from rarft.training.config import frame_sampling
from rarft.training.preflight import check_train_data_given
from rarft.training.settings_parser import parse_settings
from rarft.video.cache import FrameCache
from rarft.video.reader import VideoError

logger = logging.getLogger(__name__)


def cache_videos(arguments: list[str]) -> str:
    """Decode the videos that are not in the cache; return a line with their numbers.

    The arguments are flags of `rarft train`, of which those of data, sampling and cache are used.
    """
    settings = parse_settings(arguments, check_gpus=False)
    if not settings["frame_cache"]:
        raise InputError("--frame_cache: is missing; pass the folder that training will use")
    check_train_data_given(settings)
    sampling = frame_sampling(settings)
    cache = FrameCache(local_path(settings["frame_cache"]), settings["frame_cache_gb"] * 1e9)
    videos: dict[tuple[str, Segment | None], None] = {}  # each video, or crop of one; ordered
    for name in ("train_data_path", "eval_data_path"):
        if settings[name]:
            with input_name(f"--{name}"):
                videos |= {(sample.video, sample.crop): None for sample in read_samples(settings[name])}

    def read(video: tuple[str, Segment | None]) -> str | None:
        try:
            cache.read(video[0], sampling, video[1])
            return None
        except VideoError as error:
            return str(error)

    with ThreadPoolExecutor(max(1, settings["decode_workers"])) as pool:
        results = progress(pool.map(read, videos), "caching", total=len(videos), unit=" videos")
        errors = [error for error in results if error]
    for error in errors:
        logger.warning("video skipped: %s", error)
    decoded = len(videos) - cache.hits - len(errors)
    line = f"{len(videos)} videos: {decoded} decoded, {cache.hits} cached before, {len(errors)} unreadable"
    return line + (f", {cache.not_stored} not stored, since the folder is full" if cache.not_stored else "")
