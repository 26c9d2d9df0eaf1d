"""Upload checkpoints to an object store, one at a time, while training continues.

One checkpoint is uploaded while another may wait. If a third is ready, training waits and logs it, so disk use and
lost work are bounded. Failed uploads are retried at the end of the run, which fails if they fail again. The last
checkpoint of a run that was requested to stop is uploaded before all others, because the machine may be lost soon.
"""

import functools
import json
import logging
import math
import queue
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState

from rarft.checkpoint import remote
from rarft.checkpoint.local import CHECKPOINT_JSON, GOOD, good_step, parse_step
from rarft.errors import DivergedError, one_line
from rarft.reporting.training_log import TRAINING_HTML, TRAINING_JSONL
from rarft.storage.hashing import hash_text
from rarft.storage.location import S3Folder
from rarft.storage.manifest import CorruptFolderError
from rarft.storage.s3 import StoreError, UploadCancelledError
from rarft.storage.sync import commit_upload, upload_files, upload_folder

logger = logging.getLogger(__name__)

_PART_TIMEOUT_S = 600.0  # for the part of another machine
_POLL_INTERVAL_S = 1.0
# Files of a run that are uploaded before each checkpoint, so that the store never has a checkpoint without them.
_RUN_FILES = (TRAINING_JSONL, TRAINING_HTML, GOOD)


@dataclass(frozen=True)
class UploadTask:
    """A checkpoint to upload.

    Attributes:
        folder: Folder of the checkpoint.
        files: Manifest entries of this machine's files, if machines share no folder; None for all files.
        other_parts: Manifest entries of the other machines' files by process; only on the main process.
    """

    folder: Path
    files: dict[str, dict[str, Any]] | None = None
    other_parts: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)


def _part_marker(process: int, files: dict[str, dict[str, Any]]) -> str:
    """Return the name of the object by which a machine signals that its part is uploaded."""
    return f".part-{process}-{hash_text(json.dumps(files, sort_keys=True))[:32]}"


class CheckpointUploader:
    """A thread that uploads checkpoints from a run's local folder to its folder in an object store.

    The store keeps the newest `max_checkpoints` good ones; with None it keeps all.
    """

    def __init__(self, store: S3Folder, run: Path, max_checkpoints: int | None) -> None:
        self._store, self._run, self._max_checkpoints = store, run, max_checkpoints
        self._last_step: float = math.inf  # of the checkpoints to upload
        self._urgent_step = 0  # of the checkpoint before which no other is uploaded
        self._is_cancelled = threading.Event()
        self._waited_s = 0.0  # time that training has waited for uploads
        self._is_main = PartialState().is_main_process
        self._queue: queue.Queue[UploadTask | None] = queue.Queue(maxsize=1)
        self._failed: list[UploadTask] = []
        self._in_progress: list[Path] = []
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    @property
    def pending(self) -> list[Path]:
        """Checkpoints that must not be removed yet. Of those that failed, only the newest."""
        return [*self._in_progress, *(task.folder for task in self._failed[-1:])]

    def submit(self, task: UploadTask, is_urgent: bool = False) -> None:
        """Upload a checkpoint after those that were submitted before it, or before them if it is urgent."""
        self._in_progress.append(task.folder)
        start = time.monotonic()
        if is_urgent:
            self._urgent_step = parse_step(task.folder.name)
        elif self._queue.full():
            logger.warning("waiting: two checkpoint uploads pending")
        self._queue.put(task)
        self._waited_s += time.monotonic() - start

    def _work(self) -> None:
        while (task := self._queue.get()) is not None:
            try:
                if parse_step(task.folder.name) <= self._last_step:
                    self._upload(task)
            except UploadCancelledError:
                logger.info("%s is uploaded after checkpoint-%d", task.folder.name, self._urgent_step)
                self._failed.append(task)
            except Exception as error:  # `close` retries, and raises
                logger.warning("%s not uploaded yet: %s", task.folder.name, one_line(error))
                self._failed.append(task)
            self._in_progress.remove(task.folder)

    def _must_wait(self, task: UploadTask) -> bool:
        return self._thread.is_alive() and parse_step(task.folder.name) < self._urgent_step

    def _upload(self, task: UploadTask) -> None:
        if self._must_wait(task):
            raise UploadCancelledError
        self._upload_run_files()
        if task.files is None:
            target = self._store.child(task.folder.name)
            upload_folder(task.folder, target, CHECKPOINT_JSON, functools.partial(self._must_wait, task))
        else:
            self._upload_part(task, task.files)
            shutil.rmtree(task.folder)  # no run can resume from a part
        self._rotate()

    def _upload_run_files(self) -> None:
        if self._is_main:
            self._store.upload([(name, self._run / name) for name in _RUN_FILES if (self._run / name).exists()])

    def _rotate(self) -> None:
        if self._is_main:
            remote.rotate(self._store, self._max_checkpoints, good_step(self._run))

    def _upload_part(self, task: UploadTask, files: dict[str, dict[str, Any]]) -> None:
        """Upload this machine's part. The main process then waits for the others, and uploads the manifest."""
        target = self._store.child(task.folder.name)
        if self._is_main:
            target.delete(CHECKPOINT_JSON)
        upload_files(task.folder, target, files, functools.partial(self._must_wait, task))
        if not self._is_main:
            target.write(_part_marker(PartialState().process_index, files), b"")
            return
        expected = {_part_marker(process, part) for process, part in task.other_parts.items()}
        deadline = time.monotonic() + _PART_TIMEOUT_S
        while missing := expected - target.sizes().keys():
            if self._must_wait(task):
                raise UploadCancelledError
            if time.monotonic() > deadline or self._is_cancelled.is_set():
                raise CorruptFolderError(f"process {min(missing).split('-')[1]} has not uploaded its part")
            time.sleep(_POLL_INTERVAL_S)
        commit_upload(target, CHECKPOINT_JSON, (task.folder / CHECKPOINT_JSON).read_bytes())

    def _join(self) -> None:
        """Wait for the uploads to end."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join()
            if self._waited_s >= 1:
                logger.info("training waited %.0f s for uploads", self._waited_s)

    def close(self) -> None:
        """Wait for all uploads, and retry failed ones, newest first.

        Raises:
            RuntimeError: A checkpoint cannot be uploaded. The message names its folder.
        """
        self._join()
        failed, self._failed = self._failed, []
        for task in sorted(failed, key=lambda task: parse_step(task.folder.name), reverse=True):
            try:
                if task.folder.exists() and not self._is_outdated(task):
                    self._upload(task)
            except (StoreError, CorruptFolderError, OSError) as error:
                fix = "" if task.files is not None else "; it is complete, rerun to upload it"
                raise RuntimeError(
                    f"{task.folder}: cannot be uploaded to {self._store}: {one_line(error)}{fix}"
                ) from error
        try:
            self._upload_run_files()
            self._rotate()  # the last checkpoint is known to be good by now
        except StoreError as error:
            raise RuntimeError(f"{self._store}: cannot be completed: {error}; rerun to retry") from error

    def _is_outdated(self, task: UploadTask) -> bool:
        """Check whether rotation would remove the checkpoint at once."""
        step, good = parse_step(task.folder.name), good_step(self._run)
        newer = sum(step < each <= good for each in remote.list_steps(self._store))
        return self._max_checkpoints is not None and newer >= self._max_checkpoints

    def abandon(self, good: int) -> None:
        """Finish uploads that have begun, skip checkpoints after step `good`, and upload the log."""
        self._last_step = good
        self.close_on_exit(DivergedError)
        self._upload_run_files()

    def close_on_exit(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close, as the exit of a `with` statement. After an error, only finish uploads that have begun."""
        if kind is None:
            self.close()
        else:
            self._is_cancelled.set()
            self._join()
