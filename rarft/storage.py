"""Files that are complete or not there, and where artifacts lie.

Every step writes through `write_atomically` or `write_files`, so that a reader never sees half of anything:
the content goes to a temporary name beside its final one, reaches the disk, and is renamed.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rarft.errors import InputError


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on any error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder for results, and make sure that it can be written to.

    Raises:
        InputError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"--out {folder}: cannot be written ({error.strerror}); choose another folder") from error


@contextmanager
def write_files(folder: Path, last: str, stale: Sequence[str] = ()) -> Iterator[Path]:
    """Yield an empty folder to write into; on success its files move into `folder`, `last` at the very end.

    Whoever finds `last` finds the others of the same run beside it, and none of the files named `stale` that an
    earlier run may have left. Other files of `folder` are left alone; on any error nothing moves.

    Raises:
        InputError: `folder` cannot be written to.
    """
    make_folder(folder)
    temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=folder))
    try:
        yield temporary
        files = sorted((path for path in temporary.iterdir()), key=lambda path: (path.name == last, path.name))
        for file in files:
            _sync(file)
        for name in (last, *stale):
            (folder / name).unlink(missing_ok=True)
        for file in files:
            file.replace(folder / file.name)
        _sync(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(finished: Path, final: Path) -> None:
    """Let a finished folder take the place of `final`, which is never seen half written."""
    for file in finished.rglob("*"):
        _sync(file)
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    if final.exists():
        final.replace(old)
    finished.replace(final)
    _sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def local_path(uri: str, what: str) -> Path:
    """The local path that a plain path or `file://` URI names.

    Raises:
        InputError: another scheme.
    """
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    if "://" in uri:
        scheme = uri.split("://", 1)[0]
        raise InputError(f"{what} {uri}: {scheme}:// is not read yet; give a local path or a file:// URI")
    return Path(uri)


def existing_file(uri: str, what: str) -> Path:
    """The local file that `uri` names.

    Raises:
        InputError: it does not exist, or is a folder.
    """
    path = local_path(uri, what)
    if path.is_dir():
        raise InputError(f"{what} {path}: is a folder; give the file itself")
    if not path.exists():
        raise InputError(f"{what} {path}: no such file; check the path")
    return path


@contextmanager
def fetched(uri: str, what: str) -> Iterator[Path]:
    """Yield a local file with the content that `uri` names.

    An object of `s3://` is downloaded for as long as the context lasts; its endpoint, region and credentials
    come from the environment, as for every AWS client.

    Raises:
        InputError: it is not there, or cannot be read.
    """
    if not uri.startswith("s3://"):
        yield existing_file(uri, what)
        return
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError as error:
        raise InputError(f"{what} {uri}: reading s3:// needs boto3; install rarft[s3]") from error
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / (key.rsplit("/", 1)[-1] or "object")
        try:
            boto3.client("s3").download_file(bucket, key, str(path))
        except (BotoCoreError, ClientError, ValueError) as error:
            raise InputError(f"{what} {uri}: cannot be read ({' '.join(str(error).split())})") from error
        yield path


def existing_folder(uri: str, what: str) -> Path:
    """The local folder that `uri` names.

    Raises:
        InputError: it does not exist, or is a file.
    """
    path = local_path(uri, what)
    if not path.exists():
        raise InputError(f"{what} {path}: no such folder; check the path")
    if not path.is_dir():
        raise InputError(f"{what} {path}: is a file; give the folder that holds it")
    return path
