"""Folders of a run: the local one, which is locked and cleaned up, and the one in an object store."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarft.checkpoint.local import CHECKPOINT_JSON, DONE, FINAL, list_checkpoints, remove_temp_files
from rarft.checkpoint.resume import is_finished
from rarft.errors import InputError, input_name
from rarft.reporting.training_log import TRAINING_HTML, TRAINING_JSONL
from rarft.storage.files import LOCK, lock_folder
from rarft.storage.location import LocalFolder, Location, S3Folder, parse_location
from rarft.storage.s3 import StoreError
from rarft.storage.sync import upload_folder

_STORE = ".store"  # file with the --out of a run whose checkpoints are uploaded; empty for other runs


@dataclass(frozen=True)
class RunPaths:
    """Folders of a run."""

    out: Location  # value of --out
    local: Path
    store: S3Folder | None  # if --out is an object store
    depth: int  # number of folders that belong to the run: `checkpoints` and the parts of the run's name

    @classmethod
    def from_settings(cls, settings: dict[str, Any], name: str) -> "RunPaths":
        """Return the folders of a run; none is created yet."""
        folder = Path("checkpoints") / name
        with input_name("--out"):
            out = parse_location(settings["out"])
        with input_name("--work_dir"):
            work_dir = out if isinstance(out, LocalFolder) else parse_location(settings["work_dir"])
            if not isinstance(work_dir, LocalFolder):
                raise InputError(f"{work_dir}: is not a local folder; choose another one")
        store = out.child(folder.as_posix()) if isinstance(out, S3Folder) else None
        return cls(out, work_dir.path / folder, store, len(folder.parts))

    @property
    def location(self) -> Location:
        """Folder with the results of the run."""
        return self.store or LocalFolder(self.local)

    @property
    def _store_name(self) -> str:
        return str(self.out) if self.store else ""

    def make(self) -> None:
        """Create the folders, and check that they are writable and belong to this `--out`.

        Raises:
            InputError: They are not, or the local one has checkpoints of another `--out`.
        """
        with input_name("--work_dir" if self.store else "--out"):
            LocalFolder(self.local).make()
        with input_name("--out"):
            if self.store:
                self.out.make()
        marker = self.local / _STORE
        existing = marker.read_text(encoding="utf-8") if marker.exists() else ""
        if existing != self._store_name and list_checkpoints(self.local):
            raise InputError(
                f"{self.local}: contains checkpoints of a run with --out {existing or self.local}; use another "
                "--work_dir or --exp_name"
            )

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the local folder, and remove temporary files; after an `InputError` also a folder that is then empty.

        Raises:
            InputError: Another process trains into the folder.
        """
        with contextlib.ExitStack() as stack:
            with input_name("--exp_name"):
                stack.enter_context(lock_folder(self.local))
            remove_temp_files(self.local)
            (self.local / _STORE).write_text(self._store_name, encoding="utf-8")
            try:
                yield
            except InputError:
                self._remove_empty_folders()
                raise

    def _remove_empty_folders(self) -> None:
        if {path.name for path in self.local.iterdir()} <= {LOCK, _STORE}:
            for name in (LOCK, _STORE):
                (self.local / name).unlink(missing_ok=True)
            for folder in [self.local, *self.local.parents][: self.depth]:
                with contextlib.suppress(OSError):  # it contains other runs
                    folder.rmdir()


def is_run_finished(paths: RunPaths, fingerprint: dict[str, Any]) -> bool:
    """Check whether a run with this fingerprint has finished, and complete its upload."""
    if is_finished(paths.location, fingerprint):
        return True
    if paths.store is None or not is_finished(LocalFolder(paths.local), fingerprint):
        return False
    upload_final(paths.local, paths.store)
    return True


def upload_final(run: Path, store: S3Folder) -> None:
    """Upload the final checkpoint, then the run's other files, then the marker of a finished run."""
    names = (TRAINING_JSONL, TRAINING_HTML, "completions/*")
    files = [path for name in names for path in sorted(run.glob(name)) if path.is_file()]
    try:
        upload_folder(run / FINAL, store.child(FINAL), CHECKPOINT_JSON)
        store.upload([(path.relative_to(run).as_posix(), path) for path in files])
        store.upload([(DONE, run / DONE)])
    except StoreError as error:
        raise RuntimeError(
            f"{run / FINAL}: is complete, but cannot be uploaded: {error}; rerun to upload it"
        ) from error
