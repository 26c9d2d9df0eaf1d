"""Training into an object store: resuming after a kill and on an empty disk, and machines that share no disk."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from helpers.s3_servers import buckets, free_port
from helpers.training import FLAGS, train
from rarft import steps
from rarft.checkpoint.local import verify_checkpoint
from rarft.checkpoint.source import CHECKPOINT_JSON
from rarft.errors import InputError
from rarft.storage.location import S3Folder
from rarft.storage.sync import download_folder

SAVING = ("--save_strategy", "steps", "--save_steps", "2", "--max_steps", "6", "--resume_from_checkpoint", "auto")
RUN = "s3://runs/first/checkpoints/rarft"


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Serve a bucket `runs`."""
    with buckets("moto", tmp_path_factory.mktemp("objects"), "runs"):
        yield


@pytest.fixture(scope="module")
def uninterrupted(validated, tmp_path_factory):
    return train(validated, tmp_path_factory.mktemp("uninterrupted"), *SAVING)[0].parent


@pytest.fixture(scope="module")
def start(forks, validated):
    """Function that starts `rarft train` in a folder."""

    def start_in(folder, *flags):
        folder.mkdir(exist_ok=True)
        return forks.start(["train", *FLAGS, "--train_data_path", validated, *SAVING, *flags], folder)

    return start_in


def wait_for(process, condition):
    for _ in range(3000):
        if condition():
            return
        assert process.poll() is None
        time.sleep(0.1)
    raise AssertionError("timeout")


def same_tensors(left, right):
    assert left.keys() == right.keys()
    assert all(torch.equal(tensor, right[name]) for name, tensor in left.items())


@pytest.fixture(scope="module")
def killed_and_wiped(store, start, tmp_path_factory):
    """Kill a run once its first checkpoint is in the store, wipe its disk, and finish the run."""
    folder = tmp_path_factory.mktemp("killed") / "disk"
    process = start(folder, "--out", "s3://runs/first")
    wait_for(process, lambda: f"checkpoint-2/{CHECKPOINT_JSON}" in S3Folder(RUN).sizes())
    process.send_signal(signal.SIGKILL)
    process.wait()
    shutil.rmtree(folder)
    process = start(folder, "--out", "s3://runs/first")
    assert process.wait() == 0, (folder / "log").read_text()[-3000:]
    return folder


def test_resume_from_store_is_bit_exact(killed_and_wiped, uninterrupted, tmp_path):
    log = (killed_and_wiped / "log").read_text()
    assert f"resuming from {RUN}/checkpoint-" in log
    assert f"checkpoint: {RUN}/checkpoint-final" in log
    for name in ("checkpoint-6", "checkpoint-final"):
        download_folder(S3Folder(f"{RUN}/{name}"), tmp_path / name, CHECKPOINT_JSON)
        same_tensors(
            load_file(tmp_path / name / "model.safetensors"), load_file(uninterrupted / name / "model.safetensors")
        )
    before, after = (
        torch.load(path / "checkpoint-6" / "optimizer.pt", weights_only=True)["state"]
        for path in (uninterrupted, tmp_path)
    )
    assert all(torch.equal(before[key][moment], after[key][moment]) for key in before for moment in before[key])
    entries = map(json.loads, S3Folder(RUN).read("training.jsonl").decode().splitlines())
    assert [entry["step"] for entry in entries if "reward" in entry] == [1, 2, 3, 4, 5, 6]
    assert {"DONE", "training.html"} <= S3Folder(RUN).sizes().keys()


def test_finished_run_in_store_is_not_repeated(killed_and_wiped, start, tmp_path):
    process = start(tmp_path / "other", "--out", "s3://runs/first")
    assert process.wait() == 0
    assert "is already finished" in (tmp_path / "other" / "log").read_text()


def test_checkpoint_in_store_is_evaluated_and_trained(killed_and_wiped, validated, tmp_path):
    metrics = steps.evaluate(f"{RUN}/checkpoint-final", str(validated), "s3://runs/evaluation")
    assert json.loads(S3Folder("s3://runs/evaluation").read("metrics.json")) == metrics
    flags = ("--max_steps", "1", "--model_name_or_path", f"{RUN}/checkpoint-final")
    final, _ = train(validated, tmp_path, *flags, "--work_dir", str(tmp_path), "--learning_rate", "0")
    same_tensors(
        load_file(final / "model.safetensors"),
        load_file(next((tmp_path / ".models").glob("*/model.safetensors"))),
    )
    with pytest.raises(InputError, match=r"not a checkpoint \(no config\.json\); check the URI"):
        train(validated, tmp_path, "--model_name_or_path", "s3://runs/nothing", "--work_dir", str(tmp_path))
    S3Folder("s3://runs/other/checkpoint-2").write("config.json", b"{}")
    with pytest.raises(InputError, match=r"checkpoint\.json is missing"):
        steps.evaluate("s3://runs/other/checkpoint-2", str(validated), str(tmp_path / "out"))


def test_local_checkpoints_of_another_store(killed_and_wiped, start):
    process = start(killed_and_wiped, "--out", "s3://runs/second")
    assert process.wait() == 2
    assert "of a run with --out s3://runs/first" in (killed_and_wiped / "log").read_text().splitlines()[-1]


def test_resume_from_uri(killed_and_wiped, validated, tmp_path):
    flags = ("--resume_from_checkpoint", f"{RUN}/checkpoint-4", "--seed", "7")
    with pytest.raises(InputError, match="--seed: 42, now 7"):
        train(validated, tmp_path, *SAVING, *flags)
    assert not list((tmp_path / "checkpoints" / "rarft").glob("checkpoint-*"))
    with pytest.raises(InputError, match="it is a final model"):
        train(validated, tmp_path, *SAVING, "--resume_from_checkpoint", f"{RUN}/checkpoint-final")
    final, entries = train(validated, tmp_path, *SAVING, "--resume_from_checkpoint", f"{RUN}/checkpoint-4")
    assert [entry["step"] for entry in entries if "reward" in entry] == [5, 6]
    assert verify_checkpoint(final.parent / "checkpoint-6")["step"] == 6


def test_unwritable_output_is_detected_before_training(store, validated, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="--out s3://no-such-bucket/x: cannot be written"):
        train(validated, tmp_path, "--out", "s3://no-such-bucket/x", "--work_dir", str(tmp_path))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--out .*file/checkpoints/rarft: cannot be written"):
        train(validated, tmp_path, "--out", str(tmp_path / "file"))


def test_corrupt_checkpoint_in_store_is_excluded(killed_and_wiped, start, tmp_path):
    S3Folder(f"{RUN}/checkpoint-6").write("model.safetensors", b"torn")
    S3Folder(RUN).delete("DONE")
    folder = tmp_path / "disk"
    process = start(folder, "--out", "s3://runs/first")
    assert process.wait() == 0, (folder / "log").read_text()[-3000:]
    log = (folder / "log").read_text()
    assert "checkpoint-6 is corrupt (model.safetensors has 4 bytes" in log
    assert f"resuming from {RUN}/checkpoint-4" in log
    download_folder(S3Folder(f"{RUN}/checkpoint-6"), tmp_path / "six", CHECKPOINT_JSON)  # saved again


def test_rewind_supersedes_later_checkpoints_in_store(killed_and_wiped, start, tmp_path):
    S3Folder(RUN).delete("DONE")
    flags = ("--resume_from_checkpoint", f"{RUN}/checkpoint-4", "--max_steps", "4")
    process = start(tmp_path / "disk", "--out", "s3://runs/first", *flags)
    assert process.wait() == 0, (tmp_path / "disk" / "log").read_text()[-3000:]
    assert CHECKPOINT_JSON not in S3Folder(f"{RUN}/checkpoint-6").sizes()
    excluded = json.loads(S3Folder(f"{RUN}/checkpoint-6").read(f"superseded-{CHECKPOINT_JSON}"))
    assert excluded["reason"] == "the run was resumed from checkpoint-4"
    assert json.loads(S3Folder(RUN).read("good.json")) == {"step": 4}


@pytest.mark.long
def test_machines_that_share_no_disk(store, validated, tmp_path):
    """Two launchers with separate folders, on loopback, are killed, and resume in empty folders."""
    port = free_port()

    def machines(number):
        started = []
        for node in range(2):
            folder = tmp_path / f"{number}-{node}"
            folder.mkdir()
            command = [
                sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1",
                "--node_rank", str(node), "--master_addr", "127.0.0.1", "--master_port", str(port + number),
                "-m", "rarft.cli", "train", *FLAGS, "--train_data_path", str(validated), *SAVING,
                "--per_device_train_batch_size", "1", "--deepspeed", "zero3", "--max_steps", "6",
                "--out", "s3://runs/nodes",
            ]  # fmt: skip
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            with (folder / "log").open("wb") as log:
                started.append(subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log))
        return started

    run = "s3://runs/nodes/checkpoints/rarft"
    processes = machines(0)
    try:
        wait_for(processes[0], lambda: f"checkpoint-2/{CHECKPOINT_JSON}" in S3Folder(run).sizes())
    finally:
        for process in processes:
            process.kill()  # its worker, in another session, ends with it
            process.wait()
    processes = machines(1)
    codes = [process.wait() for process in processes]
    assert codes == [0, 0], (tmp_path / "1-0" / "log").read_text()[-3000:]
    assert f"resuming from {run}/checkpoint-" in (tmp_path / "1-0" / "log").read_text()
    download_folder(S3Folder(f"{run}/checkpoint-6"), tmp_path / "last", CHECKPOINT_JSON)
    names = {path.name for path in (tmp_path / "last").rglob("*")}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= names
    assert sum("optim_states" in name for name in names) == 2
    assert not any(name.startswith(".part-") for name in S3Folder(f"{run}/checkpoint-6").sizes())
    assert not list((tmp_path / "1-1" / "checkpoints" / "rarft").glob("checkpoint-6"))
