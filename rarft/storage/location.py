"""Folders of artifacts, local or in an S3 store, behind one interface.

Users name a location by a plain path, a `file://` URI or `s3://BUCKET/PREFIX`. Names of files in a folder are relative
and may contain subfolders (`videos/a.mp4`). A reader never sees half of a file.
"""

import shutil
import sys
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rarft.errors import InputError
from rarft.storage import s3
from rarft.storage.files import (
    existing_file,
    existing_folder,
    local_path,
    lock_folder,
    report_disk_errors,
    sync_path,
    write_atomically,
)
from rarft.storage.hashing import hash_file

STANDARD_INPUT = "-"
STANDARD_INPUT_NAME = "stdin"  # of its copy, for messages and reports
_FREE_TEMPORARY_SPACE = "free space or set TMPDIR to another folder"


@dataclass(frozen=True)
class LocalFolder:
    """A folder on disk; it does not have to exist yet."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """Last part of the path."""
        return self.path.name

    @property
    def parent(self) -> "LocalFolder":
        """Folder that contains this one."""
        return LocalFolder(self.path.parent)

    def child(self, name: str) -> "LocalFolder":
        """Return the location of a file or subfolder."""
        return LocalFolder(self.path / name)

    def make(self) -> None:
        """Create the folder and check that it is writable; otherwise raise an `InputError`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise InputError(f"{self}: cannot be written ({error.strerror}); choose another folder") from error

    def lock(self, timeout_s: float) -> AbstractContextManager[None]:
        """Hold the folder's lock; raise an `InputError` if another process holds it, even after the timeout."""
        return lock_folder(self.path, timeout_s)

    def exists(self, name: str) -> bool:
        """Check whether the folder contains a file."""
        return (self.path / name).exists()

    def read(self, name: str) -> bytes:
        """Return the content of a small file.

        Raises:
            ObjectNotFoundError: There is no such file.
            StoreError: The file cannot be read.
        """
        path = self.path / name
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            raise s3.ObjectNotFoundError(f"{path}: no such file; check the path") from error
        except OSError as error:
            raise s3.StoreError(f"{path}: cannot be read ({error.strerror}); check the path") from error

    def write(self, name: str, content: bytes) -> None:
        """Write a small file atomically."""
        with write_atomically(self.path / name) as temporary:
            temporary.write_bytes(content)

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each file in the folder and its subfolders, by name."""
        files = [path for path in self.path.rglob("*") if path.is_file()]
        return {path.relative_to(self.path).as_posix(): path.stat().st_size for path in files}

    def version(self, name: str) -> str:
        """Return a text that changes when the file does."""
        return hash_file(existing_file(str(self.path / name)))

    def upload(self, files: Sequence[tuple[str, Path]]) -> None:
        """Copy local files, each given as its name in the folder and its source path, here atomically."""
        for name, source in files:
            with write_atomically(self.path / name) as temporary:
                shutil.copyfile(source, temporary)

    @contextmanager
    def download(self, names: Sequence[str]) -> Iterator[Path]:
        """Yield the local folder, after a check that it contains these files."""
        existing_folder(str(self.path))
        for name in names:
            existing_file(str(self.path / name))
        yield self.path

    @contextmanager
    def write_files(self, last: str, stale: Sequence[str] = ()) -> Iterator[Path]:
        """Yield an empty folder to write into; on success its files move here, the marker file at the very end.

        If the marker file is present, the other files of the same run are too. On an error nothing moves.

        Args:
            last: Name of the marker file.
            stale: Names of files from an earlier run to delete.
        """
        self.make()
        with report_disk_errors(self.path):
            temporary = Path(tempfile.mkdtemp(prefix=".unfinished-", dir=self.path))
            try:
                yield temporary
                files = _marker_last(temporary, last)
                for file in files:
                    sync_path(file)
                for name in (last, *stale):
                    self.delete(name)
                for file in files:
                    file.replace(self.path / file.name)
                sync_path(self.path)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""
        (self.path / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder and everything in it, if it exists."""
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class S3Folder:
    """A prefix of an S3 bucket, as `s3://BUCKET/PREFIX` without a trailing slash.

    All methods raise `StoreError` if the store cannot be reached or refuses.

    Raises:
        InputError: The URI has no valid bucket.
    """

    uri: str

    def __post_init__(self) -> None:
        normalized = s3.SCHEME + self.uri[len(s3.SCHEME) :].rstrip("/")
        s3.split_uri(normalized)
        object.__setattr__(self, "uri", normalized)

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """Last part of the URI."""
        return self.uri.rpartition("/")[2]

    @property
    def parent(self) -> "S3Folder":
        """Prefix that contains this one; the parent of a bucket is the bucket."""
        bucket, key = s3.split_uri(self.uri)
        return S3Folder(f"{s3.SCHEME}{bucket}/{key.rpartition('/')[0]}")

    def child(self, name: str) -> "S3Folder":
        """Return the location of a file or subfolder."""
        return S3Folder(f"{self.uri}/{name}")

    def make(self) -> None:
        """Check that objects can be written and deleted under the prefix."""
        with s3.request(self.uri, "written") as (client, bucket, prefix):
            key = f"{prefix}/.writable-{uuid.uuid4().hex}".lstrip("/")
            client.head_bucket(Bucket=bucket)
            client.put_object(Bucket=bucket, Key=key, Body=b"")
            client.delete_object(Bucket=bucket, Key=key)

    def exists(self, name: str) -> bool:
        """Check whether there is an object of that name."""
        return name in self.sizes()

    def read(self, name: str) -> bytes:
        """Return the content of a small object; raise an `ObjectNotFoundError` if there is none."""
        with self.download([name]) as folder:  # unlike get_object, it retries if the connection breaks
            return (folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Write a small object."""
        with s3.request(f"{self.uri}/{name}", "written") as (client, bucket, key):
            client.put_object(Bucket=bucket, Key=key, Body=content)

    def sizes(self) -> dict[str, int]:
        """Return the size in bytes of each object under the prefix, by name."""
        return {name: size for name, (size, _) in s3.list_objects(self.uri).items()}

    def version(self, name: str) -> str:
        """Return a text that changes when the object does: its size and ETag."""
        return s3.object_version(f"{self.uri}/{name}")

    def upload(self, files: Sequence[tuple[str, Path]]) -> None:
        """Upload local files, each given as its name under the prefix and its source path.

        The last one is uploaded after all others, so that it can mark them as complete.
        """
        pairs = [(f"{self.uri}/{name}", path) for name, path in files]
        s3.upload(pairs[:-1])
        s3.upload(pairs[-1:])

    @contextmanager
    def download(self, names: Sequence[str]) -> Iterator[Path]:
        """Yield a temporary local folder that contains these objects."""
        with _temporary_folder() as temporary:
            s3.download([(f"{self.uri}/{name}", Path(temporary) / name) for name in names])
            yield Path(temporary)

    @contextmanager
    def write_files(self, last: str, stale: Sequence[str] = ()) -> Iterator[Path]:
        """Yield an empty folder to write into; on success upload its files as `LocalFolder.write_files` moves them."""
        self.make()
        with tempfile.TemporaryDirectory(prefix=".unfinished-") as temporary:
            with report_disk_errors(temporary, _FREE_TEMPORARY_SPACE):
                yield Path(temporary)
            files = [(file.name, file) for file in _marker_last(Path(temporary), last)]
            for name in (last, *stale):
                self.delete(name)
            self.upload(files)

    def delete(self, name: str) -> None:
        """Delete an object if it exists."""
        with s3.request(f"{self.uri}/{name}", "written") as (client, bucket, key):
            client.delete_object(Bucket=bucket, Key=key)

    def remove(self) -> None:
        """Delete all objects under the prefix."""
        for name in self.sizes():
            self.delete(name)


Location = LocalFolder | S3Folder


def _marker_last(folder: Path, marker: str) -> list[Path]:
    return sorted(folder.iterdir(), key=lambda path: (path.name == marker, path.name))


def parse_location(uri: str | Path) -> Location:
    """Return the location that a plain path, a `file://` URI or an `s3://` URI names."""
    text = str(uri)
    return S3Folder(text) if s3.is_object_uri(text) else LocalFolder(local_path(text))


def is_pipe(uri: str | Path) -> bool:
    """Check whether an argument names standard input, or a pipe or device that can be read only once."""
    if str(uri) == STANDARD_INPUT:
        return True
    if s3.is_object_uri(uri):
        return False
    path = local_path(str(uri))
    return path.exists() and not path.is_file() and not path.is_dir()


def _open_pipe(uri: str) -> AbstractContextManager[BinaryIO]:
    if uri == STANDARD_INPUT:
        return nullcontext(sys.stdin.buffer)
    try:
        return local_path(uri).open("rb")
    except OSError as error:
        raise InputError(f"{uri}: cannot be read ({error.strerror}); check the path") from error


@contextmanager
def _temporary_folder() -> Iterator[Path]:
    """Yield a folder that is deleted; an `InputError` if there is no folder for temporary files."""
    try:
        folder = tempfile.TemporaryDirectory(prefix="rarft-")
    except OSError as error:
        raise InputError(f"TMPDIR: no folder for temporary files can be written ({error.strerror}); set it") from error
    with folder as name:
        yield Path(name)


@contextmanager
def open_local(uri: str | Path) -> Iterator[Path]:
    """Yield a local path to the file that a path or URI names; an object is downloaded to a temporary file.

    The content of a pipe, such as `<(zcat a.gz)`, and that of standard input, `-`, are copied to a temporary file,
    because readers read a file more than once.

    Raises:
        InputError: The file does not exist or cannot be read.
    """
    if is_pipe(uri):
        with _temporary_folder() as temporary, _open_pipe(str(uri)) as pipe:
            copy = temporary / (STANDARD_INPUT_NAME if str(uri) == STANDARD_INPUT else local_path(str(uri)).name)
            with report_disk_errors(temporary, _FREE_TEMPORARY_SPACE), copy.open("wb") as file:
                shutil.copyfileobj(pipe, file)
            yield copy
        return
    location = parse_location(uri)
    if isinstance(location, LocalFolder):
        yield existing_file(str(location))
        return
    with location.parent.download([location.name]) as folder:
        yield folder / location.name
