"""Inspect the videos of annotations, several at a time.

Results are cached by the content of a file as soon as they are known, so that a killed validation resumes. The hash of
a content is cached by the file's path, size and modification time, so that an unchanged file is not read again.
"""

import ctypes
import json
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

import av

from rarft.annotations.parsing import parse_number
from rarft.annotations.schema import VideoFile
from rarft.annotations.video_files import VideoFiles
from rarft.progress import progress
from rarft.segments import Segment
from rarft.storage.hashing import hash_file
from rarft.storage.s3 import is_object_uri
from rarft.storage.sqlite_cache import SqliteCache, default_cache
from rarft.video.inspection import Inspection, inspect_video
from rarft.video.reader import VideoInfo

PROBES = ("none", "header", "decode")

_VERSION = 1  # increase it when `inspect_video` returns something else
_PR_SET_PDEATHSIG = 1  # prctl option of Linux
_Task = tuple[str, str, list[Segment | None]]  # path of a file, its version, crops

logger = logging.getLogger(__name__)


def item_crop(item: dict[str, Any]) -> Segment | None:
    """Return the part of the video that frames of an item or of a row of riq.jsonl are taken from; None for all."""
    values = item.get("crop") if "query" in item else [item.get("video_start"), item.get("video_end")]
    if not isinstance(values, list | tuple) or len(values) != 2 or (values[0] is None and values[1] is None):
        return None
    start = 0.0 if values[0] is None else parse_number(values[0])
    end = sys.float_info.max if values[1] is None else parse_number(values[1])
    return (start, end) if start is not None and end is not None and 0 <= start < end else None


class InspectionCache:
    """Inspections by the content of the file, and hashes of contents by path and version of the file."""

    def __init__(self, path: Path, fps: float | None) -> None:
        """
        Args:
            path: SQLite file.
            fps: Frames per second that are decoded; None if only the header is read.

        Raises:
            InputError: The file cannot be opened.
        """
        self._texts = SqliteCache(path)
        # Another version of FFmpeg may decode what this one cannot.
        decoder = ".".join(map(str, av.library_versions["libavcodec"]))
        self._settings = f"{_VERSION} {decoder} {fps}"

    def content(self, path: str, version: str) -> str | None:
        """Return the hash of a file's content if it is known; the version is the hash of an object."""
        return version if is_object_uri(path) else self._texts.get(f"content {path} {version}")

    def get(self, content: str, crop: Segment | None) -> Inspection | None:
        """Return the inspection of a content, or None."""
        text = self._texts.get(self._key(content, crop))
        if text is None:
            return None
        values = json.loads(text)
        return Inspection(**{**values, "info": VideoInfo(**values["info"]) if values["info"] else None})

    def find(self, path: str, version: str, crop: Segment | None) -> Inspection | None:
        """Return the inspection of a file, or None."""
        content = self.content(path, version)
        return self.get(content, crop) if content else None

    def put(self, path: str, version: str, content: str, inspections: dict[Segment | None, Inspection]) -> None:
        """Store the hash of a file's content and its inspections."""
        texts = {self._key(content, crop): json.dumps(asdict(one)) for crop, one in inspections.items()}
        self._texts.put(texts if is_object_uri(path) else {f"content {path} {version}": content, **texts})

    def _key(self, content: str, crop: Segment | None) -> str:
        return f"inspection {self._settings} {content} {crop}"


class VideoInspector:
    """Videos of annotations, and what is found in their files.

    Attributes:
        files: Files of the videos.
    """

    def __init__(self, files: VideoFiles, fps: float | None = None, cache: Path | None = None) -> None:
        """
        Args:
            files: Files of the videos.
            fps: Frames per second to decode; None to read only the headers.
            cache: SQLite file; default: in the user's cache folder.

        Raises:
            InputError: The cache cannot be opened.
        """
        self.files = files
        self._fps, self._cache_path = fps, cache or default_cache("videos.sqlite")
        self._cache = InspectionCache(self._cache_path, fps)
        self._crops: dict[str, set[Segment | None]] = {}  # by path
        self._recent = lru_cache(maxsize=4096)(self._inspect)

    def add(self, item: Any) -> None:
        """Add the video of an item to those that `inspect_all` inspects."""
        if isinstance(item, dict) and isinstance(video := item.get("video"), str):
            found = self.files.find(video)
            if len(found.paths) == 1:
                self._crops.setdefault(found.paths[0], set()).add(item_crop(item))

    def inspect_all(self) -> None:
        """Inspect the videos of all items that are not in the cache, in one process per CPU, and show the progress.

        Raises:
            RuntimeError: A process was killed. What the others found is cached.
        """
        tasks = []
        for path, crops in self._crops.items():
            version = self._version(path)
            missing = [crop for crop in crops if self._cache.find(path, version, crop) is None]
            if missing:
                tasks.append((path, version, sorted(missing, key=str)))
        if len(tasks) < len(self._crops):
            logger.info("%d of %d videos are cached", len(self._crops) - len(tasks), len(self._crops))
        self._crops.clear()
        work = "decoding videos" if self._fps else "reading videos"
        for _ in progress(self._run(tasks), work, len(tasks), unit=" videos"):
            pass

    def _run(self, tasks: list[_Task]) -> Iterator[None]:
        """Inspect files and store the results; yield after each."""
        workers = min(_available_cpus(), len(tasks))
        if workers < 2:
            work = _Worker(self._cache_path, self._fps)
            for task in tasks:
                work(task)
                yield
            return
        # A fork copies locks that other threads hold, and the connections to an object store.
        is_local = not any(is_object_uri(path) for path, *_ in tasks)
        method = "fork" if is_local and threading.active_count() == 1 else "spawn"
        context = multiprocessing.get_context(method)
        pending: set[Future[None]] = set()
        with ProcessPoolExecutor(workers, context, _start_worker, (self._cache_path, self._fps)) as pool:
            try:
                for task in tasks:
                    pending.add(pool.submit(_work, task))
                    while len(pending) > 2 * workers or (task is tasks[-1] and pending):
                        done, pending = wait(pending, return_when=FIRST_COMPLETED)
                        for future in done:
                            future.result()
                            yield
            except BrokenProcessPool as error:
                message = "a process that decodes videos was killed; if memory is short, use fewer CPUs; start again"
                raise RuntimeError(message) from error
            except BaseException:  # wait only for videos in progress
                pool.shutdown(cancel_futures=True)
                raise

    def _version(self, path: str) -> str:
        try:
            return self.files.version(path)
        except OSError:  # deleted in the meantime
            return ""

    def inspect(self, path: str, item: dict[str, Any]) -> tuple[Inspection, VideoFile | None]:
        """Return what is found in the video of an item, and the identity of its file if it can be read."""
        return self._recent(path, item_crop(item))

    def _inspect(self, path: str, crop: Segment | None) -> tuple[Inspection, VideoFile | None]:
        version = self._version(path)
        inspection = self._cache.find(path, version, crop)
        if inspection is None:  # not readable, or changed since
            inspection = _Worker(self._cache_path, self._fps)((path, version, [crop]))[0]
        content = self._cache.content(path, version)
        size, _, tag = version.partition(" ")
        return inspection, VideoFile(int(size), tag if is_object_uri(path) else content) if content else None


def _available_cpus() -> int:
    """Return the number of CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Worker:
    """Inspects files, and stores the results in the cache."""

    def __init__(self, cache: Path, fps: float | None) -> None:
        self._cache, self._fps = InspectionCache(cache, fps), fps

    def __call__(self, task: _Task) -> list[Inspection]:
        path, version, crops = task
        try:
            content = self._cache.content(path, version) or hash_file(path)
        except OSError as error:
            return [Inspection(None, "unreadable", f"cannot be read ({error.strerror})")] * len(crops)
        known = {crop: self._cache.get(content, crop) for crop in crops}
        missing = [crop for crop, inspection in known.items() if inspection is None]
        found = dict(zip(missing, inspect_video(path, missing, self._fps), strict=True)) if missing else {}
        self._cache.put(path, version, content, found)
        return [known[crop] or found[crop] for crop in crops]


_worker: _Worker | None = None  # in a worker process


def _start_worker(cache: Path, fps: float | None) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its workers
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # end when the parent is killed
    _worker = _Worker(cache, fps)


def _work(task: _Task) -> None:
    assert _worker is not None
    _worker(task)
