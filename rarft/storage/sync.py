"""Folders with a manifest, sent to an object store and fetched from there: complete or not there.

The manifest goes last and comes first: objects that none names are nobody's, and what is fetched is held against
it, because a store may be written to by others and its own checksums are not to be relied on.
"""

import os
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rarft.storage import s3
from rarft.storage.files import existing_folder, join_path, replace_folder
from rarft.storage.manifest import CorruptFolderError, fault, parse_manifest, read_manifest

_OURS = {"rarft.json", "trainer_state.json"}  # files that stand only beside a manifest
_THREADS = min(16, os.cpu_count() or 1)


def send_files(folder: Path, uri: str, files: dict[str, dict[str, Any]], what: str = "") -> list[str]:
    """Upload a folder's files; those that the store holds, by size and SHA-256, are left alone.

    Args:
        folder: that they lie in.
        uri: of the folder in the store.
        files: entries of a manifest.
        what: the flag that named the store, for messages.

    Returns:
        Names of those that were uploaded.

    Raises:
        StoreError: the store cannot be written to.
    """
    held = s3.sizes(uri, what)
    missing = [
        name
        for name, entry in files.items()
        if held.get(name) != entry["size"] or s3.sha256_of(join_path(uri, name), what) != entry["sha256"]
    ]
    s3.upload(
        [(join_path(uri, name), folder / name) for name in missing],
        what,
        {join_path(uri, name): files[name]["sha256"] for name in missing},
    )
    return missing


def upload_folder(folder: Path, uri: str, manifest: str, what: str = "") -> list[str]:
    """Upload a folder that is complete, its manifest last; there must be no other writer.

    Returns:
        Names of the files that were uploaded.

    Raises:
        StoreError: the store cannot be written to; then a reader finds no manifest.
        CorruptFolderError: the folder is not complete.
    """
    content = (folder / manifest).read_bytes()
    files = read_manifest(folder, manifest)["files"]
    place = join_path(uri, manifest)
    held = s3.sizes(uri, what)
    if manifest in held:
        if s3.read(place, what) == content:
            return []
        s3.delete(place, what)
    sent = send_files(folder, uri, files, what)
    finish(uri, manifest, content, what)
    return sent


def finish(uri: str, manifest: str, content: bytes, what: str = "") -> None:
    """Make a folder of the store complete: nothing in it but what its manifest names, and then the manifest.

    Raises:
        StoreError: the store cannot be written to.
    """
    s3.abort_pending(uri, what)
    for name in s3.sizes(uri, what).keys() - parse_manifest(content, manifest)["files"].keys():
        s3.delete(join_path(uri, name), what)
    s3.write(join_path(uri, manifest), content, what)


def fetch_folder(uri: str, folder: Path, manifest: str, what: str = "") -> None:
    """Download a folder that its manifest says is complete; `folder` appears whole or not at all.

    Raises:
        StoreError: the store cannot be read.
        CorruptFolderError: there is no manifest, or a file is not what it says.
    """
    if manifest not in s3.sizes(uri, what):
        raise CorruptFolderError(f"{manifest} is missing: it was not written to its end")
    content = s3.read(join_path(uri, manifest), what)
    files = parse_manifest(content, manifest)["files"]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
        unfinished = Path(temporary) / folder.name
        faults: dict[str, str] = {}
        for _ in range(2):  # bits that turned on their way are fetched once more
            wanted = list(faults or files)
            _fetch(uri, unfinished, wanted, what)
            with ThreadPoolExecutor(_THREADS) as pool:
                found = pool.map(lambda name: fault(unfinished, name, files[name]), wanted)
                faults = {name: wrong for name, wrong in zip(wanted, found, strict=True) if wrong}
            if not faults:
                break
        else:
            raise CorruptFolderError(next(iter(faults.values())))
        (unfinished / manifest).write_bytes(content)
        replace_folder(unfinished, folder)


def _fetch(uri: str, folder: Path, names: list[str], what: str = "") -> None:
    for name in names:
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise CorruptFolderError(f"{name} lies outside the folder")
    held = s3.sizes(uri, what)
    if gone := [name for name in names if name not in held]:
        raise CorruptFolderError(f"{gone[0]} is missing")
    s3.download([(join_path(uri, name), folder / name) for name in names], what)


@contextmanager
def fetched_folder(place: str | Path, manifest: str, what: str = "", beside: Path | None = None) -> Iterator[Path]:
    """Yield a local folder with what `place` holds; one in a store is downloaded for as long as that lasts.

    A folder of a store without a manifest, as others upload models, is taken as it is, and that is told; not where it
    looks like one of ours.

    Args:
        place: a path, or a URI.
        manifest: its name in the folder.
        what: the flag that named it, for messages.
        beside: folder to download into; by default the system's for temporary files.

    Raises:
        InputError: it is not there, or cannot be read.
        CorruptFolderError: its manifest does not fit.
    """
    if not s3.is_object_uri(place):
        yield existing_folder(str(place), what)
        return
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=beside) as temporary:
        folder = Path(temporary) / place.rstrip("/").rsplit("/", 1)[-1]
        names = s3.sizes(place, what)
        if not names:
            raise s3.StoreError(f"{what} {place}: no such folder in the store; check the path".lstrip())
        if manifest in names:
            fetch_folder(place, folder, manifest, what)
        elif folder.name.startswith("checkpoint-") or names.keys() & _OURS:
            raise CorruptFolderError(f"{manifest} is missing: it was not written to its end, or set aside")
        else:
            print(f"{what} {place}: has no {manifest}; taken as it is, unverified".lstrip(), flush=True)
            _fetch(place, folder, list(names), what)
        yield folder
