"""SHA-256 of files, texts and folders."""

import functools
import hashlib
from collections.abc import Callable
from importlib import metadata, resources
from pathlib import Path


def hash_file(path: str | Path) -> str:
    """Return the SHA-256 of a local file's content, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_text(*parts: str) -> str:
    """Return the SHA-256 of texts in their order, as hexadecimal digits. Lone surrogates are accepted."""
    return hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()


def hash_folder(folder: str | Path, include: Callable[[Path], bool] = lambda path: True) -> str:
    """Return a hash of the names and contents of the files below a folder whose relative paths `include` accepts."""
    names = sorted(path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file())
    return hash_text(*(f"{name.as_posix()} {hash_file(Path(folder) / name)}" for name in names if include(name)))


def hash_folder_stats(folder: str | Path) -> str:
    """Return a hash of the names, sizes and modification times of a folder's files; fast for large files."""
    files = sorted(path for path in Path(folder).rglob("*") if path.is_file())
    stats = [(path.relative_to(folder).as_posix(), path.stat()) for path in files]
    return hash_text(*(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in stats))


def hash_packages(*names: str) -> str:
    """Return a hash of the files of installed Python packages."""
    return hash_text(
        *(hash_folder(str(resources.files(name)), lambda path: "__pycache__" not in path.parts) for name in names)
    )


@functools.cache
def hash_distributions() -> str:
    """Return a hash of the names and versions of all installed distributions, as they were at the first call."""
    return hash_text(*sorted(f"{each.name}=={each.version}" for each in metadata.distributions()))
