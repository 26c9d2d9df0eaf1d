"""The order in which checkpoints are uploaded."""

import threading

import pytest

from rarft.checkpoint import uploader
from rarft.checkpoint.uploader import CheckpointUploader, UploadTask
from rarft.storage.location import S3Folder
from rarft.storage.s3 import UploadCancelledError


@pytest.fixture
def uploads(monkeypatch, tmp_path):
    """Replace uploads by one that blocks until `release` is set or it is cancelled; record what was completed."""
    completed, started, release = [], threading.Semaphore(0), threading.Event()

    def upload(folder, _remote, _manifest, should_stop):
        started.release()
        while not release.wait(0.01):
            if should_stop():
                raise UploadCancelledError
        completed.append(folder.name)

    monkeypatch.setattr(uploader, "upload_folder", upload)
    monkeypatch.setattr(CheckpointUploader, "_upload_run_files", lambda _: None)
    monkeypatch.setattr(CheckpointUploader, "_rotate", lambda _: None)
    monkeypatch.setattr(CheckpointUploader, "_is_outdated", lambda *_: False)
    for step in (1, 2, 3):
        (tmp_path / f"checkpoint-{step}").mkdir()
    tasks = {step: UploadTask(tmp_path / f"checkpoint-{step}") for step in (1, 2, 3)}
    return CheckpointUploader(S3Folder("s3://bucket/run"), tmp_path, None), tasks, completed, started, release


def test_checkpoints_in_order(uploads):
    checkpoint_uploader, tasks, completed, _, release = uploads
    release.set()
    for step in (1, 2, 3):
        checkpoint_uploader.submit(tasks[step])
    checkpoint_uploader.close()
    assert completed == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    assert checkpoint_uploader.pending == []


def test_last_checkpoint_of_a_stopped_run_is_first(uploads):
    """The first upload is in progress and the second waits when the third is submitted."""
    checkpoint_uploader, tasks, completed, started, release = uploads
    checkpoint_uploader.submit(tasks[1])
    assert started.acquire(timeout=10)
    checkpoint_uploader.submit(tasks[2])
    checkpoint_uploader.submit(tasks[3], is_urgent=True)
    assert started.acquire(timeout=10)  # of the third
    assert completed == []
    release.set()
    checkpoint_uploader.close()
    assert completed == ["checkpoint-3", "checkpoint-2", "checkpoint-1"]
