"""Text cache in an SQLite file, keyed by string and shared by runs."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from threading import Lock

from rarft.errors import InputError
from rarft.user_cache import temporary_cache, warn_once, writable_cache


def default_cache(name: str) -> Path:
    """Return the path of a cache in the user's cache folder; a temporary one, with a warning, if it cannot be used."""
    path = writable_cache(name)
    try:
        SqliteCache(path).close()
    except InputError as error:
        warn_once(str(error).partition(";")[0])
        return temporary_cache(name)
    return path


def _encodable(key: str) -> str:
    """Escape what a path with invalid UTF-8 puts into a key."""
    return key.encode("utf-8", "backslashreplace").decode()


class SqliteCache:
    """Texts by key, for any thread. A text that was put is on disk, even if the process is killed."""

    def __init__(self, path: Path) -> None:
        """Open the cache; create the file if it is missing."""
        self._lock = Lock()
        self._path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path, timeout=60, check_same_thread=False)
            self._database.execute("CREATE TABLE IF NOT EXISTS cache (key TEXT PRIMARY KEY, text TEXT)")
            with self._database:  # fails if the file is read-only
                self._database.execute("DELETE FROM cache WHERE key IS NULL")
        except (OSError, sqlite3.Error) as error:
            raise InputError(f"{path}: cannot be used as a cache ({error}); choose another file") from error

    def get(self, key: str) -> str | None:
        """Return the text of a key, or None."""
        with self._lock:
            row = self._database.execute("SELECT text FROM cache WHERE key = ?", (_encodable(key),)).fetchone()
        return row[0] if row else None

    def put(self, texts: Mapping[str, str]) -> None:
        """Store texts by their keys.

        Raises:
            InputError: The file cannot be written, such as on a full disk.
        """
        try:
            rows = [(_encodable(key), text) for key, text in texts.items()]
            with self._lock, self._database:
                self._database.executemany("INSERT OR REPLACE INTO cache VALUES (?, ?)", rows)
        except sqlite3.Error as error:
            raise InputError(
                f"{self._path}: cannot be written ({error}); free space or choose another file"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._database.close()
