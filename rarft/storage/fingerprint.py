"""One text that changes whenever the content behind a path does, for caches that know paths alone."""

import hashlib
from collections.abc import Iterable
from importlib import metadata, resources
from pathlib import Path

from rarft.storage.files import existing_file
from rarft.storage.s3 import is_object_uri, object_version


def fingerprint(parts: Iterable[str]) -> str:
    """One text for many, in their order."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def hash_file(uri: str, what: str) -> str:
    """Of a file its SHA-256; of an object its size and the store's tag.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    if is_object_uri(uri):
        return object_version(uri, what)
    with existing_file(uri, what).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_folder(folder: Path) -> str:
    """Of a local folder: names, sizes and times of the files in it."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(str(path.relative_to(folder)), path.stat()) for path in files]
    return fingerprint(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats)


def of_distributions() -> str:
    """Of all installed distributions: names and versions."""
    return fingerprint(sorted(f"{each.name}=={each.version}" for each in metadata.distributions()))


def of_packages(*names: str) -> str:
    """Of installed Python packages: what their files say, so that changed code is told from what ran before."""
    found: list[str] = []
    for name in names:
        root = Path(str(resources.files(name)))
        files = sorted(path for path in root.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        found += [text for path in files for text in (f"{name}/{path.relative_to(root)}", hash_file(str(path), name))]
    return fingerprint(found)
