"""Find the videos of annotations and read their properties, once per file and cached between runs."""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from rarft.errors import InputError
from rarft.storage.hashing import hash_text
from rarft.storage.location import Location, S3Folder
from rarft.storage.s3 import is_object_uri, list_objects
from rarft.storage.sqlite_cache import SqliteCache, user_cache
from rarft.video.reader import VIDEO_SUFFIXES, VideoError, VideoInfo, probe

_THREADS = min(16, 4 * (os.cpu_count() or 1))  # probing mostly waits for the disk
_BATCH = 512  # items whose videos are probed together


_PROBE_VERSION = 2  # increase it when `probe` returns other properties


class ProbeCache:
    """Cache of the properties of readable videos, by path and version of the file."""

    def __init__(self, path: Path | None) -> None:
        """
        Args:
            path: SQLite file; default: in the user's cache folder.

        Raises:
            InputError: The file cannot be opened.
        """
        self._texts = SqliteCache(path or user_cache("videos.sqlite"))

    def get(self, key: str) -> VideoInfo | None:
        """Return the properties of a file, or None."""
        text = self._texts.get(f"{_PROBE_VERSION}|{key}")
        return VideoInfo(**json.loads(text)) if text else None

    def put(self, infos: dict[str, VideoInfo]) -> None:
        """Store the properties of files."""
        self._texts.put({f"{_PROBE_VERSION}|{key}": json.dumps(asdict(info)) for key, info in infos.items()})


def _common_suffix(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the number of equal parts of two paths, counted from their ends."""
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


def _or_error(describe: Callable[[str], str], path: str) -> str:
    try:
        return describe(path)
    except OSError as error:  # a broken link, which validation reports
        return str(error.strerror)


class VideoIndex:
    """Videos under a root, found by path or base name, and their properties."""

    def __init__(self, root: Location, require_videos: bool, cache: ProbeCache | None = None) -> None:
        """
        Args:
            root: Folder that relative paths start from and base names are searched in.
            require_videos: Whether a root without videos is an error.
            cache: Cache of earlier runs.

        Raises:
            InputError: The root contains no videos although they are required.
        """
        self._root = root if isinstance(root, S3Folder) else str(root.path.resolve())
        self._cache = cache
        self._by_name: dict[str, list[str]] = {}
        self._probed: dict[str, VideoInfo | VideoError] = {}
        self._objects: dict[str, str] = {}  # objects under the root: URI -> size and ETag
        if isinstance(root, S3Folder):
            objects = sorted(list_objects(root.uri).items())
            self._objects = {f"{root}/{name}": f"{size} {tag}" for name, (size, tag) in objects}
        for path in self._objects or _files(str(self._root)):
            if Path(path).suffix.lower() in VIDEO_SUFFIXES:
                self._by_name.setdefault(path.rsplit("/", 1)[-1], []).append(path)
        if require_videos and not self._by_name:
            suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
            raise InputError(f"{root}: contains no videos ({suffixes}); use the folder of the videos")

    def _is_file(self, path: str) -> bool:
        return path in self._objects if is_object_uri(path) else Path(path).is_file()

    def _key(self, path: str) -> str:
        """Return the path and version of a file.

        Raises:
            OSError: The file does not exist.
        """
        if is_object_uri(path):
            return f"{path}|{self._objects[path]}"
        status = Path(path).stat()
        return f"{path}|{status.st_size}|{status.st_mtime_ns}"

    def _size(self, path: str) -> str:
        return self._objects[path].partition(" ")[0] if is_object_uri(path) else str(Path(path).stat().st_size)

    def find(self, video: str) -> tuple[list[str], bool]:
        """Find the file of a video.

        Returns:
            The file's path, and whether only its base name matched. No path if there is no such file; several if they
            have the base name and match the folders of the path equally well.
        """
        parts = video.removeprefix("file://").replace("\\", "/").split("/")
        try:
            for candidate in self._candidates(video):
                if self._is_file(candidate):
                    return [candidate], False
        except (OSError, ValueError):  # an impossible name: too long, or with a NUL
            return [], False
        same_name = self._by_name.get(parts[-1], [])
        if len(same_name) < 2:
            return same_name, True
        matches = {path: _common_suffix(path.split("/"), parts) for path in same_name}
        return [path for path in same_name if matches[path] == max(matches.values())], True

    def _candidates(self, video: str) -> list[str]:
        if is_object_uri(video):
            return [video]
        path = video.removeprefix("file://")
        return [f"{self._root}/{video}" if isinstance(self._root, S3Folder) else str(Path(self._root) / path), path]

    def resolve(self, video: str) -> str:
        """Return the path of a video's file if there is exactly one, else the name itself."""
        paths, _ = self.find(video)
        return paths[0] if len(paths) == 1 else video

    def fingerprint(self) -> str:
        """Return a text that changes when a video under the root changes, is added or is removed."""
        return hash_text(*(f"{path} {_or_error(self._key, path)}" for path in self._paths()))

    def size_fingerprint(self) -> str:
        """Return a text that changes when the name or size of a video changes, wherever the root is."""
        return hash_text(*sorted(f"{Path(path).name} {_or_error(self._size, path)}" for path in self._paths()))

    def _paths(self) -> Iterator[str]:
        return (path for name in sorted(self._by_name) for path in self._by_name[name])

    def probe(self, path: str) -> VideoInfo | VideoError:
        """Return the properties of a video's file, or the error that makes it unusable."""
        if path not in self._probed:
            self._probe_missing([path], map)
        return self._probed[path]

    def _probe_missing(self, paths: Iterable[str], run: Callable[..., Iterable[VideoInfo | VideoError]]) -> None:
        """Probe the files that are not known yet.

        Args:
            paths: Files.
            run: `map`, or the parallel `map` of an executor.
        """
        missing = []
        for path in paths:
            if path in self._probed:
                continue
            known = self._cache.get(self._key(path)) if self._cache else None
            if known is None:
                missing.append(path)
            else:
                self._probed[path] = known
        infos = dict(zip(missing, run(_probe, missing), strict=True))
        self._probed |= infos
        if self._cache and infos:
            self._cache.put({self._key(path): info for path, info in infos.items() if isinstance(info, VideoInfo)})

    def prefetch_probes(self, items: Iterable[Any]) -> Iterator[Any]:
        """Yield the items after probing the videos of the next ones in parallel."""
        iterator = iter(items)
        with ThreadPoolExecutor(_THREADS) as pool:
            while batch := list(islice(iterator, _BATCH)):
                names = {
                    item["video"] for item in batch if isinstance(item, dict) and isinstance(item.get("video"), str)
                }
                paths = {path for name in names for path in self.find(name)[0]}
                self._probed.clear()  # the previous batch; the cache keeps it
                self._probe_missing(sorted(paths), pool.map)
                yield from batch
