"""Finalization of a checkpoint by several processes, which are threads here."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from rarft.checkpoint.local import CHECKPOINT_JSON, verify_checkpoint
from rarft.storage.manifest import hash_files
from rarft.training.callbacks import checkpoint as module
from rarft.training.callbacks.checkpoint import CheckpointCallback

PROCESSES, PER_MACHINE = 4, 2


@pytest.fixture
def run_processes(monkeypatch):
    """Return a function that calls a function of the rank in four processes, on two machines."""
    local, barrier = threading.local(), threading.Barrier(PROCESSES, timeout=30)
    values, hashed = [None] * PROCESSES, []

    def all_gather(value):
        values[local.state.process_index] = value
        barrier.wait()
        gathered = list(values)
        barrier.wait()
        return gathered

    def hash_and_record(folder, manifest, names):
        hashed.extend((folder, name) for name in names)
        return hash_files(folder, manifest, names)

    def process(function, rank):
        local.state = SimpleNamespace(
            process_index=rank, local_process_index=rank % PER_MACHINE, num_processes=PROCESSES,
            is_main_process=rank == 0, is_local_main_process=rank % PER_MACHINE == 0,
        )  # fmt: skip
        return function(rank)

    def run(function):
        with ThreadPoolExecutor(PROCESSES) as pool:
            return list(pool.map(lambda rank: process(function, rank), range(PROCESSES)))

    monkeypatch.setattr(module, "PartialState", lambda: local.state)
    monkeypatch.setattr(module, "all_gather", all_gather)
    monkeypatch.setattr(module, "barrier", barrier.wait)
    monkeypatch.setattr(module, "hash_files", hash_and_record)
    return run, hashed


def make_folder(path, ranks):
    path.mkdir(parents=True)
    for rank in ranks:
        (path / f"rng_state_{rank}.pth").write_bytes(bytes([rank]) * (rank + 1))
    (path / "config.json").write_text("{}")
    return path


def callback():
    return CheckpointCallback(*[None] * 8)


def test_shared_folder(tmp_path, run_processes):
    """Every file is hashed once, by whichever process."""
    run, hashed = run_processes
    folder = make_folder(tmp_path / "checkpoint-1", range(4))
    expected = hash_files(folder, CHECKPOINT_JSON)
    tasks = run(lambda _: callback()._finalize_shared(folder))
    assert sorted(name for _, name in hashed) == sorted(expected)
    assert (tasks[0].folder, tasks[1:]) == (folder, [None, None, None])
    assert verify_checkpoint(folder)["files"] == expected


def test_one_folder_per_machine(tmp_path, run_processes):
    run, hashed = run_processes
    folders = [
        make_folder(tmp_path / str(machine) / "checkpoint-1", (2 * machine, 2 * machine + 1)) for machine in (0, 1)
    ]
    own = [hash_files(folder, CHECKPOINT_JSON) for folder in folders]
    tasks = run(lambda rank: callback()._finalize_per_node(folders[rank // PER_MACHINE]))
    assert sorted(hashed) == sorted(
        (folder, name) for folder, files in zip(folders, own, strict=True) for name in files
    )
    assert (tasks[0].files, tasks[0].other_parts) == (own[0], {2: own[1]})
    assert (tasks[2].files, tasks[2].other_parts) == (own[1], {})
    assert (tasks[1], tasks[3]) == (None, None)
    manifest = json.loads((folders[0] / CHECKPOINT_JSON).read_text())
    assert (manifest["files"], manifest["world_size"]) == ({**own[1], **own[0]}, PROCESSES)
    assert not (folders[1] / CHECKPOINT_JSON).exists()
