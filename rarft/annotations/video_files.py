"""Find the files of videos that annotations name."""

import os
import stat
import unicodedata
from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from rarft.annotations.parsing import base_name
from rarft.errors import InputError
from rarft.storage.hashing import hash_text
from rarft.storage.location import Location, S3Folder
from rarft.storage.s3 import is_object_uri, list_objects
from rarft.video.reader import VIDEO_SUFFIXES


class FoundVideo(NamedTuple):
    """Result of a search.

    Attributes:
        paths: Path of the file; none if there is no such file, several if they match equally well.
        by_name: Whether the file was found by its name, instead of at the path that was given.
    """

    paths: list[str]
    by_name: bool


def _file_id(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _files(root: str) -> Iterator[tuple[str, tuple[int, int] | None]]:
    """Yield the path and id of each video under a folder, those behind links to folders last.

    Each folder is searched once, and links to a folder that contains the root are not followed. A link to a file has
    no id.
    """
    containing = {str(parent) for parent in Path(root).parents}
    linked, seen = deque([root]), set[tuple[int, int]]()
    while linked:
        start = linked.popleft()
        folders = [] if os.path.realpath(start) in containing else [start]
        while folders:
            folder = folders.pop()
            try:
                device, inode = _file_id(Path(folder).stat())
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except OSError:  # not readable, or deleted in the meantime
                continue
            if (device, inode) in seen:
                continue
            seen.add((device, inode))
            subfolders: list[str] = []
            for entry in entries:
                if _is_folder(entry):
                    (linked if entry.is_symlink() else subfolders).append(entry.path)
                elif _suffix(entry.name):
                    yield entry.path, None if entry.is_symlink() else (device, entry.inode())
            folders += reversed(subfolders)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _suffix(name: str) -> str:
    """Return the suffix of a video file; empty for other files."""
    suffix = Path(name).suffix
    return suffix if suffix.lower() in VIDEO_SUFFIXES else ""


def _base_name(path: str) -> str:
    return path.rsplit("/", 1)[-1]


def _spelling(name: str) -> str:
    """Return what names share that differ in case, composed characters, percent-encoding or suffix."""
    name = unicodedata.normalize("NFC", unquote(name)).casefold()
    return name.removesuffix(_suffix(name))


def _common_suffix(one: Sequence[str], other: Sequence[str]) -> int:
    """Return the number of equal parts of two paths, counted from their ends."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


class VideoFiles:
    """Videos under a root, found by path or name. A file that several links lead to is one video."""

    def __init__(self, root: Location, require_videos: bool) -> None:
        """
        Args:
            root: Folder that relative paths start from and names are searched in.
            require_videos: Whether a root without videos is an error.

        Raises:
            InputError: The root contains no videos although they are required.
        """
        self._root = root if isinstance(root, S3Folder) else str(root.path.resolve())
        self._by_name: dict[str, list[str]] = {}
        self._first_path: dict[tuple[int, int], str] = {}  # by device and inode
        self._objects: dict[str, str] = {}  # objects under the root: URI -> size and ETag
        if isinstance(root, S3Folder):
            objects = sorted(list_objects(root.uri).items())
            self._objects = {f"{root}/{name}": f"{size} {tag}" for name, (size, tag) in objects}
            for path in filter(_suffix, self._objects):
                self._by_name.setdefault(_base_name(path), []).append(path)
        else:
            links = []
            for path, file_id in _files(str(self._root)):
                if file_id:
                    self._first_path.setdefault(file_id, path)
                else:
                    links.append(path)
                self._by_name.setdefault(_base_name(path), []).append(path)
            for path in links:
                self._existing(path)
        if require_videos and not self._by_name:
            suffixes = ", ".join(sorted(VIDEO_SUFFIXES))
            raise InputError(f"{root}: contains no videos ({suffixes}); use the folder of the videos")

    @cached_property
    def _by_spelling(self) -> dict[str, list[str]]:
        """Names of files by what remains of them without differences of spelling."""
        names = defaultdict(list)
        for name in self._by_name:
            names[_spelling(name)].append(name)
        return names

    def version(self, path: str) -> str:
        """Return a text that changes when a file does: size and modification time, or size and ETag.

        Raises:
            OSError: The file does not exist.
        """
        if is_object_uri(path):
            return self._objects[path]
        status = Path(path).stat()
        return f"{status.st_size} {status.st_mtime_ns}"

    def find(self, video: str) -> FoundVideo:
        """Find the file of a video.

        It is searched by its path under the root, by its own path, by its base name under the root, and by its base
        name without percent-encoding or with the suffix of a video.
        """
        try:
            for candidate in self._candidates(video):
                if found := self._existing(candidate):
                    return FoundVideo([found], by_name=False)
        except ValueError:  # a name with a NUL
            return FoundVideo([], by_name=False)
        parts = video.removeprefix("file://").replace("\\", "/").split("/")
        paths = self._by_name.get(parts[-1]) or [
            path for name in self._written_differently(parts[-1]) for path in self._by_name[name]
        ]
        paths = list(dict.fromkeys(filter(None, map(self._existing, paths))))
        if len(paths) > 1:
            parts = [unquote(part) for part in parts[:-1]] + [""]
            matches = {path: _common_suffix([*path.split("/")[:-1], ""], parts) for path in paths}
            paths = [path for path in paths if matches[path] == max(matches.values())]
        return FoundVideo(paths, by_name=True)

    def _candidates(self, video: str) -> list[str]:
        if is_object_uri(video):
            return [video]
        path = video.removeprefix("file://")
        return [f"{self._root}/{video}" if isinstance(self._root, S3Folder) else str(Path(self._root) / path), path]

    def _existing(self, path: str) -> str | None:
        """Return the path of a file if it exists; of several paths of one file under the root always the same one."""
        if is_object_uri(path):
            return path if path in self._objects else None
        try:
            status = Path(path).stat()
        except OSError:  # missing, behind a link to itself, or an impossible name
            return None
        return self._first_path.setdefault(_file_id(status), path) if stat.S_ISREG(status.st_mode) else None

    def _written_differently(self, name: str) -> list[str]:
        """Return the names of files that differ from a name only in percent-encoding, or in a suffix that it lacks."""
        decoded = unquote(name)
        names = self._by_spelling.get(_spelling(name), [])
        if exact := [other for other in names if unquote(other) == decoded]:
            return exact
        return [other for other in names if unquote(other).removesuffix(_suffix(other)) == decoded]

    def similar(self, video: str) -> list[str]:
        """Return the names of files that differ from a video's in case, composed characters or suffix."""
        return self._by_spelling.get(_spelling(base_name(video)), [])

    def resolve(self, video: str) -> str:
        """Return the path of a video's file if there is exactly one, else the name itself."""
        paths = self.find(video).paths
        return paths[0] if len(paths) == 1 else video

    def fingerprint(self) -> str:
        """Return a text that changes when a video under the root changes, is added or is removed."""
        return hash_text(*(f"{path} {self._version_or_error(path)}" for path in self._paths()))

    def size_fingerprint(self) -> str:
        """Return a text that changes when the name or size of a video changes, wherever the root is."""
        sizes = (f"{_base_name(path)} {self._version_or_error(path).partition(' ')[0]}" for path in self._paths())
        return hash_text(*sorted(sizes))

    def _version_or_error(self, path: str) -> str:
        try:
            return self.version(path)
        except OSError as error:  # a broken link, which validation reports
            return str(error.strerror).replace(" ", "-")

    def _paths(self) -> Iterator[str]:
        return (path for name in sorted(self._by_name) for path in self._by_name[name])
