"""Texts remembered between runs, by key, in an SQLite file of the user's."""

import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from rarft.errors import InputError


def user_cache(name: str) -> Path:
    """A file of that name in `rarft/` of the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rarft" / name


class SqliteCache:
    """Texts by key. All accesses must come from the thread that opened it."""

    def __init__(self, path: Path, what: str = "") -> None:
        """
        Args:
            path: SQLite file; made where it is missing.
            what: the flag that named it, for messages.

        Raises:
            InputError: it cannot be opened.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60)
            self._database.execute("CREATE TABLE IF NOT EXISTS remembered (key TEXT PRIMARY KEY, text TEXT)")
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{what} {path}: cannot be used ({error}); give another file".lstrip()) from error

    def get(self, key: str) -> str | None:
        """What was put there; None if nothing was."""
        row = self._database.execute("SELECT text FROM remembered WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def put(self, texts: Mapping[str, str]) -> None:
        """Remember texts by their keys."""
        with self._database:
            self._database.executemany("INSERT OR REPLACE INTO remembered VALUES (?, ?)", texts.items())
