"""Where an annotation's video lies, and what it is; each file looked at once, and remembered between runs."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from rarft.errors import InputError
from rarft.storage.files import Location, join_path
from rarft.storage.fingerprint import fingerprint
from rarft.storage.s3 import is_object_uri, list_objects
from rarft.storage.sqlite_cache import SqliteCache, user_cache
from rarft.video.probe import VIDEO_SUFFIXES, VideoError, VideoInfo, probe

_THREADS = min(16, 4 * (os.cpu_count() or 1))  # probing waits for the disk more than it computes
_AHEAD = 512  # items whose videos are probed together


class ProbeCache:
    """What files were found to be, by path and version; only readable videos are kept."""

    def __init__(self, path: Path | None) -> None:
        """
        Args:
            path: SQLite file; None for the user's cache folder.

        Raises:
            InputError: it cannot be opened.
        """
        self._texts = SqliteCache(path or user_cache("videos.sqlite"), "--video-cache")

    def get(self, key: str) -> VideoInfo | None:
        """What the file of this path and version was found to be."""
        text = self._texts.get(key)
        return VideoInfo(**json.loads(text)) if text else None

    def put(self, found: dict[str, VideoInfo]) -> None:
        """Remember what files are."""
        self._texts.put({key: json.dumps(asdict(info)) for key, info in found.items()})


def _common_end(one: Sequence[str], other: Sequence[str]) -> int:
    """How many parts two paths have in common, counted from their ends."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _files(root: str) -> Iterator[str]:
    for folder, folders, names in os.walk(root, followlinks=True):
        folders.sort()
        yield from (str(Path(folder) / name) for name in sorted(names))


def _probe(path: str) -> VideoInfo | VideoError:
    try:
        return probe(path)
    except VideoError as error:
        return error


class VideoIndex:
    """Finds videos under a root, by their path there or by base name, and knows what each is."""

    def __init__(self, root: Location, must_hold_videos: bool, cache: ProbeCache | None = None) -> None:
        """
        Args:
            root: folder, or its URI, that relative paths start from and base names are looked up in.
            must_hold_videos: whether a root without any video is a mistake.
            cache: what earlier runs found.

        Raises:
            InputError: the root holds no video although it must.
        """
        self._root = root if is_object_uri(root) else str(Path(root).resolve())
        self._cache = cache
        self._by_name: dict[str, list[str]] = {}
        self._probed: dict[str, VideoInfo | VideoError] = {}
        # Objects under the root, by URI, and what changes when they do.
        self._objects: dict[str, str] = {}
        if is_object_uri(root):
            held = sorted(list_objects(root, "--video-root").items())
            self._objects = {join_path(root, name): f"{size} {tag}" for name, (size, tag) in held}
        for path in self._objects or _files(self._root):
            if Path(path).suffix.lower() in VIDEO_SUFFIXES:
                self._by_name.setdefault(path.rsplit("/", 1)[-1], []).append(path)
        if must_hold_videos and not self._by_name:
            suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
            raise InputError(
                f"--video-root {root}: holds no video ({suffixes}); give the folder that the videos lie in"
            )

    def _is_file(self, path: str) -> bool:
        return path in self._objects if is_object_uri(path) else Path(path).is_file()

    def _key(self, path: str) -> str:
        """Of the file as it is now."""
        if is_object_uri(path):
            return f"{path}|{self._objects[path]}"
        status = Path(path).stat()
        return f"{path}|{status.st_size}|{status.st_mtime_ns}"

    def _fingerprint_of(self, path: str) -> str:
        try:
            return self._key(path)
        except OSError as error:  # a link to nowhere, which validation will tell
            return f"{path}|{error.strerror}"

    def find(self, video: str) -> tuple[list[str], bool]:
        """The file that `video` means; and whether only its base name led there.

        None where there is no such file. Several where they have the base name and none of them fits the path's
        folders better than the others.
        """
        parts = video.removeprefix("file://").replace("\\", "/").split("/")
        try:
            for candidate in self._candidates(video):
                if self._is_file(candidate):
                    return [candidate], False
        except (OSError, ValueError):  # a name that no file system takes: too long, or with a NUL
            return [], False
        named = self._by_name.get(parts[-1], [])
        if len(named) < 2:
            return named, True
        fits = {path: _common_end(path.split("/"), parts) for path in named}
        return [path for path in named if fits[path] == max(fits.values())], True

    def _candidates(self, video: str) -> list[str]:
        if is_object_uri(video):
            return [video]
        path = video.removeprefix("file://")
        return [join_path(self._root, video) if is_object_uri(self._root) else str(Path(self._root) / path), path]

    def fingerprint(self) -> str:
        """What changes when a video under the root does, or when one comes or goes."""
        return fingerprint(self._fingerprint_of(path) for path in self._paths())

    def content(self) -> str:
        """What changes when a video under the root gets another name or size, wherever the root lies."""
        return fingerprint(sorted(f"{path.rpartition('/')[2]} {self._size(path)}" for path in self._paths()))

    def _size(self, path: str) -> str:
        if is_object_uri(path):
            return self._objects[path].partition(" ")[0]
        try:
            return str(Path(path).stat().st_size)
        except OSError as error:
            return str(error.strerror)

    def _paths(self) -> Iterator[str]:
        return (path for name in sorted(self._by_name) for path in self._by_name[name])

    def identity(self, video: str) -> str:
        """What two names of one file have in common."""
        found, _ = self.find(video)
        return found[0] if len(found) == 1 else video

    def probe(self, path: str) -> VideoInfo | VideoError:
        """What the file is, or why it cannot be used."""
        if path not in self._probed:
            self._probe_missing([path], map)
        return self._probed[path]

    def _probe_missing(self, paths: Iterable[str], each: Any) -> None:
        """Probe the files that are not known yet; `each` maps a function over paths, one by one or in parallel."""
        unknown = []
        for path in paths:
            if path in self._probed:
                continue
            known = self._cache.get(self._key(path)) if self._cache else None
            if known is None:
                unknown.append(path)
            else:
                self._probed[path] = known
        found = dict(zip(unknown, each(_probe, unknown), strict=True))
        self._probed |= found
        if self._cache and found:
            self._cache.put({self._key(path): info for path, info in found.items() if isinstance(info, VideoInfo)})

    def prefetch_probes(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items, the videos of the next ones probed side by side before they come."""
        iterator = iter(items)
        with ThreadPoolExecutor(_THREADS) as pool:
            while batch := list(islice(iterator, _AHEAD)):
                names = {
                    item["video"] for item in batch if isinstance(item, dict) and isinstance(item.get("video"), str)
                }
                found = {path for name in names for path in self.find(name)[0]}
                self._probed.clear()  # what the batch before needed; the cache keeps it
                self._probe_missing(sorted(found), pool.map)
                yield from batch
