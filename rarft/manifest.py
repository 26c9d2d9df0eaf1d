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

from rarft.storage import sync_path, write_atomically

_CHUNK = 2**22  # bytes
_THREADS = min(16, os.cpu_count() or 1)  # hashing lets other threads run


class IncompleteError(Exception):
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


def write_manifest(folder: Path, manifest: str, about: dict[str, Any]) -> None:
    """Bring a folder's files to the disk and then write its manifest.

    Args:
        folder: with all of its files written.
        manifest: its name in the folder.
        about: what else it is to say, beside `files`.
    """
    files = _files(folder, manifest)

    def entry(path: Path) -> dict[str, Any]:
        sync_path(path)
        return {"size": path.stat().st_size, "sha256": sha256(path)}

    with ThreadPoolExecutor(_THREADS) as pool:
        entries = list(pool.map(entry, files))
    for place in {path.parent for path in files}:
        sync_path(place)
    names = [path.relative_to(folder).as_posix() for path in files]
    with write_atomically(folder / manifest) as temporary:
        temporary.write_text(json.dumps({**about, "files": dict(zip(names, entries, strict=True))}, indent=1) + "\n")


def read_manifest(folder: Path, manifest: str) -> dict[str, Any]:
    """The manifest, its files not looked at.

    Raises:
        IncompleteError: there is none, or it cannot be read.
    """
    try:
        content = json.loads((folder / manifest).read_text(encoding="utf-8"))
        if not isinstance(content["files"], dict):
            raise ValueError("its list of files is none")
    except FileNotFoundError as error:
        raise IncompleteError(f"{manifest} is missing: it was not written to its end") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise IncompleteError(f"{manifest} cannot be read ({error})") from error
    return dict(content)


def verify(folder: Path, manifest: str) -> dict[str, Any]:
    """The manifest, after every file was held against it. Files that it does not name are nobody's concern.

    Raises:
        IncompleteError: a file is missing, or is not what it was.
    """
    content = read_manifest(folder, manifest)

    def fault(item: tuple[str, dict[str, Any]]) -> str | None:
        name, entry = item
        path = folder / name
        try:
            if path.stat().st_size != entry["size"]:
                return f"{name} has {path.stat().st_size} bytes in place of {entry['size']}"
            return None if sha256(path) == entry["sha256"] else f"{name} is not what was written"
        except OSError as error:
            return f"{name} cannot be read ({error.strerror})"

    with ThreadPoolExecutor(_THREADS) as pool:
        faults = [found for found in pool.map(fault, content["files"].items()) if found]
    if faults:
        raise IncompleteError(faults[0])
    return content
