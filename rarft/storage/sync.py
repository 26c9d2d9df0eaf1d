"""Upload and download of folders with a manifest; in the store too, a folder is complete if its manifest is present.

The manifest is written last and read first. Objects that it does not name are ignored. A download is checked against
it, because others may write to the store, and not every store's own checksums can be relied on.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rarft.storage import s3
from rarft.storage.files import replace_folder
from rarft.storage.location import S3Folder
from rarft.storage.manifest import CorruptFolderError, find_mismatches, parse_manifest, read_manifest

logger = logging.getLogger(__name__)

_OWN_FILES = {"rarft.json", "trainer_state.json"}  # a folder of ours with one of these must have a manifest
_DOWNLOAD_ATTEMPTS = 2


def upload_files(
    folder: Path, remote: S3Folder, files: dict[str, dict[str, Any]], should_stop: Callable[[], bool] = lambda: False
) -> list[str]:
    """Upload the files that the store does not have yet, by their entries from `hash_files`. Return their names."""
    present = remote.sizes()
    missing = {
        name: f"{remote}/{name}"
        for name, entry in files.items()
        if present.get(name) != entry["size"] or s3.stored_sha256(f"{remote}/{name}") != entry["sha256"]
    }
    s3.upload(
        [(uri, folder / name) for name, uri in missing.items()],
        hashes={uri: files[name]["sha256"] for name, uri in missing.items()},
        should_stop=should_stop,
    )
    return list(missing)


def upload_folder(
    folder: Path, remote: S3Folder, manifest: str, should_stop: Callable[[], bool] = lambda: False
) -> list[str]:
    """Upload a complete folder, its manifest last; there must be no other writer. Return the uploaded files' names.

    Raises:
        StoreError: The store cannot be written to; then it has no manifest of the folder.
        CorruptFolderError: The local folder is not complete.
        UploadCancelledError: `should_stop` returned True.
    """
    content = (folder / manifest).read_bytes()
    files = read_manifest(folder, manifest)["files"]
    if remote.exists(manifest):
        if remote.read(manifest) == content:
            return []
        remote.delete(manifest)
    uploaded = upload_files(folder, remote, files, should_stop)
    commit_upload(remote, manifest, content)
    return uploaded


def commit_upload(remote: S3Folder, manifest: str, content: bytes) -> None:
    """Delete what the manifest does not name, then write the manifest, which completes the folder."""
    s3.abort_multipart_uploads(remote.uri)
    for name in remote.sizes().keys() - parse_manifest(content, manifest)["files"].keys():
        remote.delete(name)
    remote.write(manifest, content)


def download_folder(remote: S3Folder, folder: Path, manifest: str) -> None:
    """Download a folder and verify it against its manifest; the local folder appears atomically.

    Raises:
        StoreError: The store cannot be read.
        CorruptFolderError: The manifest is missing, or a file does not match it.
    """
    if not remote.exists(manifest):
        raise CorruptFolderError(f"{manifest} is missing, the folder is incomplete")
    content = remote.read(manifest)
    files = parse_manifest(content, manifest)["files"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        unfinished = Path(temporary) / folder.name
        mismatches: dict[str, str] = {}
        for _ in range(_DOWNLOAD_ATTEMPTS):
            wanted = {name: files[name] for name in mismatches or files}
            _download_files(remote, unfinished, list(wanted))
            if not (mismatches := find_mismatches(unfinished, wanted)):
                break
        else:
            raise CorruptFolderError(next(iter(mismatches.values())))
        (unfinished / manifest).write_bytes(content)
        replace_folder(unfinished, folder)


def _download_files(remote: S3Folder, folder: Path, names: list[str]) -> None:
    for name in names:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise CorruptFolderError(f"{name} is outside the folder")
    if missing := sorted(set(names) - remote.sizes().keys()):
        raise CorruptFolderError(f"{missing[0]} is missing")
    s3.download([(f"{remote}/{name}", folder / name) for name in names])


@contextmanager
def open_local_folder(remote: S3Folder, manifest: str, temp_dir: Path | None = None) -> Iterator[Path]:
    """Download a folder temporarily and yield its local path.

    A folder without a manifest, such as a model that others uploaded, is used without verification, unless
    it looks like an incomplete folder of ours. `temp_dir` defaults to the system's folder for temporary files.

    Raises:
        InputError: The folder does not exist or cannot be read.
        CorruptFolderError: The folder is incomplete or does not match its manifest.
    """
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=temp_dir) as temporary:
        folder = Path(temporary) / remote.name
        names = remote.sizes()
        if not names:
            raise s3.ObjectNotFoundError(f"{remote}: no such folder in the store; check the path")
        if manifest in names:
            download_folder(remote, folder, manifest)
        elif folder.name.startswith("checkpoint-") or names.keys() & _OWN_FILES:
            raise CorruptFolderError(f"{manifest} is missing, the folder is incomplete or was marked as invalid")
        else:
            logger.warning("%s: no %s, used without verification", remote, manifest)
            _download_files(remote, folder, list(names))
        yield folder
