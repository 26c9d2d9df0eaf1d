"""Checkpoints sent to an object store beside training, one after the other.

One is sent while another may wait; a third makes training wait, which is told and counted, so that neither disk
nor loss is unbounded. What could not be sent is tried again at the end, and then its failure is the run's.
"""

import hashlib
import json
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
from rarft.checkpoint.local import CHECKPOINT_JSON, GOOD, good_step, step_of
from rarft.errors import DivergedError, one_line
from rarft.reporting.training_log import TRAINING_HTML, TRAINING_JSONL
from rarft.storage import s3
from rarft.storage.files import join_path
from rarft.storage.manifest import CorruptFolderError
from rarft.storage.sync import commit_upload, upload_files, upload_folder

_TIMEOUT_S = 600.0  # seconds that the main process waits for another machine's part
_POLL_S = 1.0  # seconds between two looks
# Files of a run that are sent before each checkpoint, so that a checkpoint in the store never lacks them.
_BESIDE = (TRAINING_JSONL, TRAINING_HTML, GOOD)


@dataclass(frozen=True)
class UploadTask:
    """A checkpoint to send.

    Attributes:
        folder: the checkpoint.
        files: entries of those that this machine holds, where machines share no folder.
        others: what the other machines hold, by their process: only the main process's parcel says.
    """

    folder: Path
    files: dict[str, dict[str, Any]] | None = None
    others: dict[int, dict[str, dict[str, Any]]] = field(default_factory=dict)


def _receipt(process: int, files: dict[str, dict[str, Any]]) -> str:
    """Name of the object by which a machine says that its part is there."""
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
    return f".part-{process}-{digest[:32]}"


class CheckpointUploader:
    """A thread that sends checkpoints.

    Attributes:
        waited: seconds that training has waited for it.
    """

    def __init__(self, uri: str, run: Path, most: int | None) -> None:
        """
        Args:
            uri: of the run's folder in the store.
            run: the run's folder on this machine.
            most: good checkpoints to keep there; None: all.
        """
        self.uri, self._run, self._most = uri, run, most
        self._last: float = math.inf  # step of the last checkpoint to send
        self._gives_up = threading.Event()
        self.waited = 0.0
        self._process, self._is_main = PartialState().process_index, PartialState().is_main_process
        self._parcels: queue.Queue[UploadTask | None] = queue.Queue(maxsize=1)
        self._failed: list[tuple[UploadTask, Exception]] = []
        self._under_way: list[Path] = []
        self._thread = threading.Thread(target=self._work, name="uploads", daemon=True)
        self._thread.start()

    @property
    def under_way(self) -> list[Path]:
        """Checkpoints that must not be removed yet: while the store is away, the newest that waits for it."""
        return [*self._under_way, *(parcel.folder for parcel, _ in self._failed[-1:])]

    def send(self, parcel: UploadTask) -> None:
        """Send a checkpoint when its turn comes."""
        self._under_way.append(parcel.folder)
        began = time.monotonic()
        if self._parcels.full():
            print("training: waits for the store, two checkpoints are on their way there", flush=True)
        self._parcels.put(parcel)
        self.waited += time.monotonic() - began

    def _work(self) -> None:
        while (parcel := self._parcels.get()) is not None:
            try:
                if step_of(parcel.folder) <= self._last:
                    self._send(parcel)
            except Exception as error:  # whatever it is, `close` raises it if it lasts
                print(f"training: {parcel.folder.name} not sent yet: {one_line(error)}", flush=True)
                self._failed.append((parcel, error))
            self._under_way.remove(parcel.folder)

    def _send(self, parcel: UploadTask) -> None:
        uri = join_path(self.uri, parcel.folder.name)
        self._send_beside()
        if parcel.files is None:
            upload_folder(parcel.folder, uri, CHECKPOINT_JSON, remote.WHAT)
        elif self._is_main:
            self._send_with_others(parcel, uri)
        else:
            upload_files(parcel.folder, uri, parcel.files, remote.WHAT)
            s3.write(join_path(uri, _receipt(self._process, parcel.files)), b"", remote.WHAT)
        if parcel.files is not None:
            shutil.rmtree(parcel.folder)  # a part of a checkpoint is of no use here
        if self._is_main:
            remote.rotate(self.uri, self._most, good_step(self._run))

    def _send_beside(self) -> None:
        if self._is_main:
            files = [(join_path(self.uri, name), self._run / name) for name in _BESIDE if (self._run / name).exists()]
            s3.upload(files, remote.WHAT)

    def _send_with_others(self, parcel: UploadTask, uri: str) -> None:
        assert parcel.files is not None
        s3.delete(join_path(uri, CHECKPOINT_JSON), remote.WHAT)
        upload_files(parcel.folder, uri, parcel.files, remote.WHAT)
        expected = {_receipt(process, files) for process, files in parcel.others.items()}
        ends = time.monotonic() + _TIMEOUT_S
        while missing := expected - s3.sizes(uri, remote.WHAT).keys():
            if time.monotonic() > ends or self._gives_up.is_set():
                raise CorruptFolderError(f"process {min(missing).split('-')[1]} has not sent its part")
            time.sleep(_POLL_S)
        commit_upload(uri, CHECKPOINT_JSON, (parcel.folder / CHECKPOINT_JSON).read_bytes(), remote.WHAT)

    def close(self) -> None:
        """Wait for all that is under way, and try once more what could not be sent, the newest first.

        Raises:
            RuntimeError: a checkpoint is not in the store; the message says where it lies.
        """
        if self._thread.is_alive():
            self._parcels.put(None)
            self._thread.join()
            if self.waited >= 1:
                print(f"training: waited {self.waited:.0f} s for the store while training", flush=True)
        failed, self._failed = self._failed, []
        for parcel, _ in sorted(failed, key=lambda entry: step_of(entry[0].folder), reverse=True):
            try:
                if parcel.folder.exists() and not self._is_outdated(parcel):
                    self._send(parcel)
            except (s3.StoreError, CorruptFolderError, OSError) as error:
                again = "" if parcel.files is not None else "; it is whole, and starting again sends it"
                raise RuntimeError(
                    f"{parcel.folder} could not be sent to {self.uri}{again}: {one_line(error)}"
                ) from error
        try:
            self._send_beside()
            if self._is_main:  # the last checkpoint is known to be good by now
                remote.rotate(self.uri, self._most, good_step(self._run))
        except s3.StoreError as error:
            raise RuntimeError(f"the end of the run could not be sent to {self.uri}: {error}") from error

    def _is_outdated(self, parcel: UploadTask) -> bool:
        """Whether rotation would remove it at once."""
        step, good = step_of(parcel.folder), good_step(self._run)
        newer = sum(step < held <= good for held in remote.steps_held(self.uri))
        return self._most is not None and newer >= self._most

    def abandon(self, good: int) -> None:
        """Wait for what is under way and begin no checkpoint of a step after `good`; then send the log.

        Raises:
            StoreError: The log cannot be sent.
        """
        self._last = good
        self.close_after(DivergedError)
        self._send_beside()

    def close_after(self, kind: type[BaseException] | None, *_: object) -> None:
        """As the exit of a `with`: `close`; after an error only let what is under way end, and hide nothing."""
        if kind is None:
            self.close()
        elif self._thread.is_alive():
            self._gives_up.set()
            self._parcels.put(None)
            self._thread.join()
