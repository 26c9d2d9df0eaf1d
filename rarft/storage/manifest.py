"""Manifest of a folder: size and SHA-256 of every file, written last.

If a manifest is present and matches, the folder is complete. If its writer was killed, the folder has no manifest, or
one that does not match.
"""

import json
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rarft.storage.files import sync_path, write_atomically
from rarft.storage.hashing import hash_file

_HASH_THREADS = min(16, os.cpu_count() or 1)  # hashing releases the GIL


class CorruptFolderError(Exception):
    """A file of a folder, or its manifest, is missing or damaged."""


def hash_files(folder: Path, manifest: str, names: Iterable[str] | None = None) -> dict[str, dict[str, Any]]:
    """Flush files to disk and return size and SHA-256 of each, by its relative name; default: all but the manifest."""
    paths = folder.rglob("*") if names is None else (folder / name for name in names)
    files = sorted(path for path in paths if path.is_file() and path != folder / manifest)

    def entry(path: Path) -> dict[str, Any]:
        sync_path(path)
        return {"size": path.stat().st_size, "sha256": hash_file(path)}

    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        entries = list(pool.map(entry, files))
    for parent in {path.parent for path in files}:
        sync_path(parent)
    return {path.relative_to(folder).as_posix(): entry for path, entry in zip(files, entries, strict=True)}


def write_manifest(folder: Path, manifest: str, fields: dict[str, Any], files: dict[str, dict[str, Any]]) -> None:
    """Write a folder's manifest: other fields, and the result of `hash_files`, which has flushed the files to disk."""
    with write_atomically(folder / manifest) as temporary:
        temporary.write_text(json.dumps({**fields, "files": files}, indent=1) + "\n", encoding="utf-8")


def parse_manifest(content: bytes, manifest: str) -> dict[str, Any]:
    """Return the fields of a manifest; raise a `CorruptFolderError` if it is not one."""
    try:
        parsed = json.loads(content)
        if not isinstance(parsed["files"], dict):
            raise ValueError("`files` is not an object")
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptFolderError(f"{manifest} cannot be read ({error})") from error
    return dict(parsed)


def read_manifest(folder: Path, manifest: str) -> dict[str, Any]:
    """Return the fields of a folder's manifest without checking the files; errors are those of `parse_manifest`."""
    try:
        return parse_manifest((folder / manifest).read_bytes(), manifest)
    except FileNotFoundError as error:
        raise CorruptFolderError(f"{manifest} is missing, the folder is incomplete") from error
    except OSError as error:
        raise CorruptFolderError(f"{manifest} cannot be read ({error})") from error


def _find_mismatch(folder: Path, name: str, entry: dict[str, Any]) -> str | None:
    path = folder / name
    try:
        if path.stat().st_size != entry["size"]:
            return f"{name} has {path.stat().st_size} bytes instead of {entry['size']}"
        return None if hash_file(path) == entry["sha256"] else f"{name} does not match its SHA-256"
    except OSError as error:
        return f"{name} cannot be read ({error.strerror})"


def find_mismatches(folder: Path, files: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Compare files with their entries in the manifest; return what differs, by name."""
    with ThreadPoolExecutor(_HASH_THREADS) as pool:
        found = pool.map(lambda item: _find_mismatch(folder, *item), files.items())
        return {name: mismatch for name, mismatch in zip(files, found, strict=True) if mismatch}


def verify_folder(folder: Path, manifest: str) -> dict[str, Any]:
    """Check every file of the manifest, and return the manifest's fields. Other files are ignored.

    Raises:
        CorruptFolderError: A file is missing or does not match.
    """
    fields = read_manifest(folder, manifest)
    if mismatches := find_mismatches(folder, fields["files"]):
        raise CorruptFolderError(next(iter(mismatches.values())))
    return fields
