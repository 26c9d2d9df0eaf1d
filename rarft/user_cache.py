"""The user's cache folder, which may be missing or read-only: containers run under user ids without a home."""

import functools
import logging
import os
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)


def cache_folder() -> Path | None:
    """Return the folder for caches: XDG_CACHE_HOME, or ~/.cache; None if there is no home folder."""
    configured = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if configured.is_absolute():  # the standard ignores relative paths
        return configured / "rarft"
    try:
        return Path.home() / ".cache" / "rarft"
    except RuntimeError:  # no HOME, and a user id without an entry in /etc/passwd
        return None


def find_problem(folder: Path | None) -> str | None:
    """Return why files cannot be created in a folder, which is created if it is missing; None if they can."""
    if folder is None:
        return "no home folder"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return f"{folder}: {error.strerror}"


@functools.cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    """Return a folder that is deleted when this process ends."""
    return tempfile.TemporaryDirectory(prefix="rarft-cache-")


@functools.cache
def warn_once(problem: str) -> None:
    """Log that this command uses a temporary cache; once per process and problem."""
    logger.warning(
        "no cache is kept, because it cannot be written (%s); set XDG_CACHE_HOME to a writable folder", problem
    )


def writable_cache(name: str) -> Path:
    """Return the path of a file in the user's cache folder; one in a temporary folder if that cannot be written.

    Then a warning is logged, and later commands do not find what is cached.
    """
    folder = cache_folder()
    if (problem := find_problem(folder)) is None:
        assert folder is not None
        return folder / name
    warn_once(problem)
    return temporary_cache(name)


def temporary_cache(name: str) -> Path:
    """Return the path of a file in a folder that is deleted when this process ends."""
    return Path(_temporary_folder().name) / name
