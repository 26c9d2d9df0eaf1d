"""A folder that says of itself that it is complete: every file with its size and SHA-256, written last.

Whoever finds a manifest that fits finds everything that it names. A folder that was being written when its writer
was killed has none, or one that does not fit.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rarft.storage.files import sync_path, write_atomically

_CHUNK = 2**22  # bytes
_THREADS = min(16, os.cpu_count() or 1)  # hashing lets other threads run


class CorruptFolderError(Exception):
    """What is missing from a folder, or wrong with it."""


def _files(folder: Path, manifest: str) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / manifest)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def hash_files(folder: Path, manifest: str) -> dict[str, dict[str, Any]]:
    """Bring a folder's files to the disk; returns size and SHA-256 of each, by its name in the folder."""
    files = _files(folder, manifest)

    def entry(path: Path) -> dict[str, Any]:
        sync_path(path)
        return {"size": path.stat().st_size, "sha256": sha256(path)}

    with ThreadPoolExecutor(_THREADS) as pool:
        found = list(pool.map(entry, files))
    for place in {path.parent for path in files}:
        sync_path(place)
    return {path.relative_to(folder).as_posix(): entry for path, entry in zip(files, found, strict=True)}


def write_manifest(folder: Path, manifest: str, about: dict[str, Any], files: dict[str, dict[str, Any]]) -> None:
    """Write a folder's manifest, the last that is written of it.

    Args:
        folder: with all of its files on the disk.
        manifest: its name in the folder.
        about: what else it is to say.
        files: of `hash_files`.
    """
    with write_atomically(folder / manifest) as temporary:
        temporary.write_text(json.dumps({**about, "files": files}, indent=1) + "\n", encoding="utf-8")


def parse_manifest(content: bytes, manifest: str) -> dict[str, Any]:
    """The manifest that these bytes are.

    Raises:
        CorruptFolderError: they are none.
    """
    try:
        parsed = json.loads(content)
        if not isinstance(parsed["files"], dict):
            raise ValueError("its list of files is none")
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFolderError(f"{manifest} cannot be read ({error})") from error
    return dict(parsed)


def read_manifest(folder: Path, manifest: str) -> dict[str, Any]:
    """The manifest, its files not looked at.

    Raises:
        CorruptFolderError: there is none, or it cannot be read.
    """
    try:
        return parse_manifest((folder / manifest).read_bytes(), manifest)
    except FileNotFoundError as error:
        raise CorruptFolderError(f"{manifest} is missing: it was not written to its end") from error
    except OSError as error:
        raise CorruptFolderError(f"{manifest} cannot be read ({error})") from error


def find_mismatch(folder: Path, name: str, entry: dict[str, Any]) -> str | None:
    """What is wrong with a file of a folder; None where it is what its entry says."""
    path = folder / name
    try:
        if path.stat().st_size != entry["size"]:
            return f"{name} has {path.stat().st_size} bytes in place of {entry['size']}"
        return None if sha256(path) == entry["sha256"] else f"{name} is not what was written"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"


def verify_folder(folder: Path, manifest: str) -> dict[str, Any]:
    """The manifest, after every file was held against it. Files that it does not name are nobody's concern.

    Raises:
        CorruptFolderError: a file is missing, or is not what it was.
    """
    content = read_manifest(folder, manifest)
    with ThreadPoolExecutor(_THREADS) as pool:
        for found in list(pool.map(lambda item: find_mismatch(folder, *item), content["files"].items())):
            if found:
                raise CorruptFolderError(found)
    return content
