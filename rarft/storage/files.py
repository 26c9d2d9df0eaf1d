"""Local files and folders that are written atomically, and the paths that users give."""

import errno
import fcntl
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from rarft.errors import InputError

_INCOMPLETE_URI = re.compile(r"(s3|s3a|gs|hf|https?|file):/*", re.IGNORECASE)
_MAX_NAME_BYTES = 255  # of common file systems
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
LOCK = ".lock"  # name of the lock file in a folder
_LOCK_TIMEOUT_S = 30.0  # a process that was just killed may take this long to exit


@contextmanager
def report_disk_errors(folder: str | Path, fix: str = "free space or choose another folder") -> Iterator[None]:
    """Turn an error of the disk, such as a full one, into an `InputError` that names the folder.

    Some libraries raise their own exceptions, which contain the text of the system's error.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        code = error.errno if isinstance(error, OSError) else None
        text = str(error)
        code = code or next((each for each in _DISK_ERRORS if os.strerror(each) in text), None)
        if code not in _DISK_ERRORS:
            raise
        raise InputError(f"{folder}: cannot be written ({os.strerror(code)}); {fix}") from error


def sync_path(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder. On success it is renamed to `path`, on an error it is deleted.

    Raises:
        InputError: The disk is full or broken.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with report_disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            sync_path(temporary)
            temporary.replace(path)
            sync_path(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


def replace_folder(finished: Path, final: Path) -> None:
    """Rename a finished folder to `final`, replacing a folder of that name; no reader sees a part of it."""
    for file in finished.rglob("*"):
        sync_path(file)
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    if final.exists():
        final.replace(old)
    finished.replace(final)
    sync_path(final.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def lock_folder(folder: Path, timeout_s: float = _LOCK_TIMEOUT_S) -> Iterator[None]:
    """Hold the lock of a folder, which excludes other processes on all machines that share the file system.

    Raises:
        InputError: Another process holds the lock, even after the timeout.
    """
    with (folder / LOCK).open("w") as lock:
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    raise InputError(f"{folder}: in use by another process; stop it or choose another name") from error
                time.sleep(0.5)
        yield


def local_path(uri: str) -> Path:
    """Return the path of a plain path or a percent-encoded `file://` URI.

    Raises:
        InputError: The URI has another scheme, or names another host.
    """
    if any("\ud800" <= character <= "\udfff" for character in uri):  # bytes that Python could not decode
        raise InputError(f"{uri}: not valid {sys.getfilesystemencoding()}; rename it, or set LC_ALL=C.UTF-8")
    if any(len(os.fsencode(part)) > _MAX_NAME_BYTES for part in uri.split("/")):
        raise InputError(f"{uri[:40]}...: a name longer than {_MAX_NAME_BYTES} bytes; check the path")
    scheme, separator, rest = uri.partition("://")
    if not separator:
        if typo := _INCOMPLETE_URI.match(uri):
            scheme = typo[1].lower()
            fix = f"{scheme}://{'/' * (scheme == 'file')}{uri[typo.end() :]}"
            raise InputError(f"{uri}: incomplete URI; did you mean {fix}? A folder of that name is ./{uri}")
        return Path(uri)
    scheme = scheme.lower()
    if scheme != "file":
        raise InputError(f"{uri}: {scheme}:// is not supported here; use a local path or a file:// URI")
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise InputError(f"{uri}: invalid file:// URI; use file:///absolute/path")
    return Path(unquote(slash + path))


def existing_file(uri: str) -> Path:
    """Return the path of a local file; raise an `InputError` if it does not exist or is a folder."""
    path = local_path(uri)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the path of a file")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    return path


def existing_folder(uri: str) -> Path:
    """Return the path of a local folder; raise an `InputError` if it does not exist or is a file."""
    path = local_path(uri)
    if not path.exists():
        raise InputError(f"{path}: no such folder; check the path")
    if not path.is_dir():
        raise InputError(f"{path}: is a file; give the path of its folder")
    return path
