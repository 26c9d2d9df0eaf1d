"""Local files and folders that are written atomically, and the paths that users give."""

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from rarft.errors import InputError, input_name
from rarft.storage import s3

LOCK = ".lock"  # name of the lock file in a folder
_LOCK_TIMEOUT_S = 30.0  # a process that was just killed may take this long to exit

# Transitional.
Location = str | Path


def sync_path(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the same folder. On success it is renamed to `path`, on an error it is deleted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
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
def lock_folder(folder: Path, what: str = "") -> Iterator[None]:
    """Hold the lock of a folder, which excludes other processes on all machines that share the file system.

    Raises:
        InputError: Another process holds the lock, even after half a minute.
    """
    with (folder / LOCK).open("w") as lock:
        deadline = time.monotonic() + _LOCK_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > deadline:
                    with input_name(what):
                        raise InputError(
                            f"{folder}: in use by another process; stop it or choose another name"
                        ) from error
                time.sleep(0.5)
        yield


@s3.accept_what
def local_path(uri: str) -> Path:
    """Return the path of a plain path or a percent-encoded `file://` URI.

    Raises:
        InputError: The URI has another scheme, or names another host.
    """
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return Path(uri)
    if scheme != "file":
        raise InputError(f"{uri}: {scheme}:// is not supported here; use a local path or a file:// URI")
    host, slash, path = rest.partition("/")
    if host not in ("", "localhost"):
        raise InputError(f"{uri}: invalid file:// URI; use file:///absolute/path")
    return Path(unquote(slash + path))


@s3.accept_what
def existing_file(uri: str) -> Path:
    """Return the path of a local file.

    Raises:
        InputError: The file does not exist or is a folder.
    """
    path = Path(local_path(uri))
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the path of a file")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the path")
    return path


@s3.accept_what
def existing_folder(uri: str) -> Path:
    """Return the path of a local folder.

    Raises:
        InputError: The folder does not exist or is a file.
    """
    path = Path(local_path(uri))
    if not path.exists():
        raise InputError(f"{path}: no such folder; check the path")
    if not path.is_dir():
        raise InputError(f"{path}: is a file; give the path of its folder")
    return path


# ---- Transitional: everything below goes away. ----


def make_folder(place: Location, what: str = "--out") -> None:
    """Make a folder for results, named by the flag `what`, and make sure that it can be written to.

    Raises:
        InputError: it cannot.
    """
    place = str(place)
    if s3.is_object_uri(place):
        s3.check_writable(place, what)
        return
    folder = local_path(str(place), what)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"{what} {folder}: cannot be written ({error.strerror}); choose another folder".lstrip()
        ) from error


@contextmanager
def write_files(place: Location, last: str, stale: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty folder to write into; on success its files move into `place`, `last` at the very end.

    Whoever finds `last` finds the others of the same run beside it, and none of the files named `stale` that an
    earlier run may have left. Other files of `place` are left alone; on any error nothing moves.

    Raises:
        InputError: `place` cannot be written to.
    """
    place = str(place)
    make_folder(place)
    beside = None if s3.is_object_uri(place) else local_path(str(place), "--out")
    temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=beside))
    try:
        yield temporary
        files = sorted((path for path in temporary.iterdir()), key=lambda path: (path.name == last, path.name))
        if beside is None:
            for name in (last, *stale):
                s3.delete(join_path(place, name), "--out")
            uris = [(join_path(place, file.name), file) for file in files]
            s3.upload(uris[:-1], "--out")
            s3.upload(uris[-1:], "--out")  # whoever finds it finds the others
        else:
            _move(files, beside, (last, *stale))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(files: Sequence[Path], folder: Path, outdated: Sequence[str]) -> None:
    for file in files:
        sync_path(file)
    for name in outdated:
        (folder / name).unlink(missing_ok=True)
    for file in files:
        file.replace(folder / file.name)
    sync_path(folder)


def join_path(place: Location, name: str) -> str:
    """Where `name` of a folder lies."""
    return f"{str(place).rstrip('/')}/{name}"


def exists(place: Location, name: str) -> bool:
    """Whether a folder holds a file of that name.

    Raises:
        InputError: the store that the folder lies in cannot be asked.
    """
    place = str(place)
    if s3.is_object_uri(place):
        return name in s3.sizes(place, "--out")
    return (local_path(str(place), "--out") / name).exists()


def remove_folder(place: Location) -> None:
    """Remove a folder with all that it holds, if it is there."""
    place = str(place)
    if s3.is_object_uri(place):
        for name in s3.sizes(place, "--out"):
            s3.delete(join_path(place, name), "--out")
    else:
        shutil.rmtree(local_path(str(place), "--out"), ignore_errors=True)


def place_of(uri: str, what: str = "") -> Location:
    """The folder that `uri` names: a URI of an object store, or a local path.

    Raises:
        InputError: another scheme.
    """
    uri = str(uri)
    return uri if s3.is_object_uri(uri) else local_path(uri, what)


@contextmanager
def open_local(uri: str, what: str = "") -> Iterator[Path]:
    """Yield a local file with the content that `uri` names; an object is downloaded for as long as that lasts.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    if not s3.is_object_uri(uri):
        yield existing_file(uri, what)
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (uri.rsplit("/", 1)[-1] or "object")
        s3.download([(uri, path)], what)
        yield path


@contextmanager
def open_local_files(place: Location, names: Sequence[str], what: str = "") -> Iterator[Path]:
    """Yield a local folder with these files of `place`; objects are downloaded for as long as that lasts.

    Raises:
        InputError: the folder, or a file of it in a store, is not there or cannot be read.
    """
    place = str(place)
    if not s3.is_object_uri(place):
        yield existing_folder(str(place), what)
        return
    with tempfile.TemporaryDirectory() as folder:
        s3.download([(join_path(place, name), Path(folder) / name) for name in names], what)
        yield Path(folder)
