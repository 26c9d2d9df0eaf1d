"""Divergence: the run stops, names the step, and its last good checkpoint remains."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from helpers.diverging import KINDS, inject
from helpers.paths import HELPERS
from helpers.s3_servers import buckets
from helpers.training import FLAGS, assert_same_state, train, weights
from rarft.checkpoint import remote
from rarft.checkpoint.local import CHECKPOINT_JSON, DONE, FINAL, good_step, list_checkpoints, verify_checkpoint
from rarft.errors import DivergedError
from rarft.storage.location import S3Folder
from rarft.storage.s3 import StoreError
from rarft.training.divergence import StepGuard, check_weights, exclude_diverged

SAVING = ("--save_strategy", "steps", "--save_steps", "1", "--max_steps", "4", "--resume_from_checkpoint", "auto")
CAUSES = {"loss": "the loss is nan", "gradient": "the gradient norm is nan", "weights": "the weights after it are not"}
# Newest good checkpoint, and the one that is renamed, if step 3 of a run that saves every step diverges.
REMAINING = {"loss": (1, 2), "gradient": (1, 2), "weights": (2, None)}


@pytest.fixture(scope="module")
def uninterrupted(validated, tmp_path_factory):
    return train(validated, tmp_path_factory.mktemp("uninterrupted"), *SAVING)[0].parent


@pytest.fixture
def diverge(main, validated, monkeypatch):
    """Train in this process with a NaN at a step; return the last line and the run's folder."""

    def run(kind, at, *flags):
        handler = signal.getsignal(signal.SIGTERM)
        with monkeypatch.context() as patch:
            inject(kind, at, set_attribute=patch.setattr)
            code, _, errors = main("train", *FLAGS, "--train_data_path", validated, *SAVING, *flags)
        assert code == 1
        assert "Traceback" not in errors
        assert signal.getsignal(signal.SIGTERM) == handler
        return errors.splitlines()[-1], Path("checkpoints/rarft").absolute()

    return run


def names(run):
    return [path.name for path in list_checkpoints(run)]


@pytest.mark.parametrize("kind", KINDS)
def test_diverged_run_resumes_from_good_checkpoint(kind, diverge, validated, tmp_path, uninterrupted):
    """The run stops at step 3. Once the cause is removed, its result is that of a run that never diverged."""
    line, run = diverge(kind, 3)
    good, renamed = REMAINING[kind]
    assert line.startswith(f"rarft train: step 3: {CAUSES[kind]}")
    assert f"auto resumes from checkpoint-{good}, the newest good one" in line
    assert names(run) == [f"checkpoint-{step}" for step in range(good, 0, -1)]
    assert [path.name for path in run.glob("diverged-*")] == ([f"diverged-checkpoint-{renamed}"] if renamed else [])
    for path in run.glob("diverged-*"):
        assert (path / "reason.txt").read_text().startswith("training diverged")
    assert not (run / DONE).exists()
    assert not (run / FINAL).exists()
    logged = [json.loads(text) for text in (run / "training.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in logged if "reward" in entry] == [1, 2, 3][: 3 if kind == "weights" else 2]

    final, entries = train(validated, tmp_path, *SAVING)
    assert [entry["step"] for entry in entries if "reward" in entry] == [1, 2, 3, 4]
    assert_same_state(run / "checkpoint-4", uninterrupted / "checkpoint-4")
    assert (run / DONE).exists()
    assert all(torch.equal(tensor, weights(uninterrupted / FINAL)[name]) for name, tensor in weights(final).items())


def test_good_checkpoints_survive_restarts_that_diverge(diverge):
    """A cause that persists, or appears earlier, must not remove one good checkpoint per restart."""
    _, run = diverge("loss", 4)
    assert names(run) == ["checkpoint-2", "checkpoint-1"]
    for _ in range(2):
        line, _ = diverge("loss", 3)
        assert "auto resumes from checkpoint-2" in line
        assert names(run) == ["checkpoint-2", "checkpoint-1"]
    assert [path.name for path in run.glob("diverged-*")] == ["diverged-checkpoint-3"]


def test_checkpoint_is_not_good_before_next_step(diverge, uninterrupted, tmp_path):
    """A run resumes from the checkpoint of a killed one, and excludes it if the next step diverges."""
    run = tmp_path / "checkpoints" / "rarft"
    for step in (1, 2):
        shutil.copytree(uninterrupted / f"checkpoint-{step}", run / f"checkpoint-{step}")
    (run / "good.json").write_text('{"step": 1}')
    line, _ = diverge("gradient", 3)
    assert "auto resumes from checkpoint-1" in line
    assert names(run) == ["checkpoint-1"]
    (run / "diverged-checkpoint-2").rename(run / "checkpoint-2")
    diverge("loss", 4)  # step 3 is finite
    assert names(run) == ["checkpoint-2", "checkpoint-1"]


def test_rotation_keeps_newest_good_checkpoint(diverge, validated, tmp_path):
    line, run = diverge("loss", 3, "--save_total_limit", "1")
    assert "auto resumes from checkpoint-1" in line
    assert names(run) == ["checkpoint-1"]
    train(validated, tmp_path, *SAVING, "--save_total_limit", "1")
    # checkpoint-1 is kept because the run resumed from it.
    assert names(run) == ["checkpoint-4", "checkpoint-1"]


def test_nan_between_log_entries_and_in_one_micro_batch(diverge):
    flags = ("--logging_steps", "4", "--gradient_accumulation_steps", "2", "--max_grad_norm", "0")
    line, run = diverge("loss", 2, *flags)
    assert line.startswith("rarft train: step 2: the loss is nan")
    assert "auto starts from scratch, because no checkpoint is known to be good" in line
    assert names(run) == []


def test_bad_final_weights_are_not_saved(diverge):
    line, run = diverge("weights", 2, "--save_strategy", "no", "--max_steps", "2")
    assert line.startswith("rarft train: step 2: the weights after it are not finite (")
    assert not (run / FINAL).exists()
    assert not (run / DONE).exists()


def test_checkpoint_of_last_step_counts_as_good(uninterrupted):
    assert good_step(uninterrupted) == 4


def test_store_keeps_good_checkpoint_of_diverged_run(
    diverge, validated, tmp_path, tmp_path_factory, uninterrupted, caplog
):
    store = "s3://runs/a/checkpoints/rarft"
    with buckets("moto", tmp_path_factory.mktemp("objects"), "runs"):
        out = ("--out", "s3://runs/a", "--save_total_limit", "1")
        line, run = diverge("loss", 4, *out)
        assert "auto resumes from checkpoint-2" in line
        files = S3Folder(store).sizes()
        assert f"checkpoint-2/{CHECKPOINT_JSON}" in files
        assert f"checkpoint-3/{CHECKPOINT_JSON}" not in files
        assert DONE not in files
        assert not any(name.startswith(FINAL) for name in files)
        shutil.rmtree(run)
        # The first step of a restart must not remove checkpoint-2, which the store records as good.
        line, run = diverge("loss", 3, *out)
        assert "auto resumes from checkpoint-2" in line
        shutil.rmtree(run)
        train(validated, tmp_path, *SAVING, *out)
        assert f"resuming from {store}/checkpoint-2" in caplog.text
        assert_same_state(run / "checkpoint-4", uninterrupted / "checkpoint-4")
        files = S3Folder(store).sizes()
        assert DONE in files
        assert json.loads(S3Folder(store).read("good.json")) == {"step": 4}
        complete_names = {name.split("/")[0] for name in files if name.endswith(f"/{CHECKPOINT_JSON}")}
        assert complete_names == {"checkpoint-4", FINAL}


def test_store_that_cannot_be_written(tmp_path, monkeypatch):
    """A run would resume from its diverged checkpoints, so the last line names those to delete."""

    def fail(run):
        raise StoreError("no response")

    monkeypatch.setattr(remote, "list_steps", fail)
    advice = exclude_diverged(tmp_path, S3Folder("s3://runs/a"), True, None)
    assert advice == "delete the checkpoints after step 0 in s3://runs/a before resuming (no response)"


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_two_ranks_stop_together(kind, validated, tmp_path):
    """A NaN on the second rank only, under ZeRO-3: both ranks stop, and resume once the cause is removed."""

    def launch(*program):
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d",
            "--rdzv_endpoint", "localhost:0", *program, "train", *FLAGS, "--deepspeed", "zero3",
            "--per_device_train_batch_size", "1", "--train_data_path", str(validated), *SAVING,
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    done = launch(str(HELPERS / "diverging.py"), kind, "3", "1")
    assert done.returncode == 1
    cause = "the gradient norm is infinite" if kind == "gradient" else CAUSES[kind]  # DeepSpeed's result
    lines = [line for line in done.stderr.splitlines() if line.startswith("rarft train: ")]
    assert len(lines) in (1, 2)  # torchrun may end one rank before it prints
    assert all(line.startswith(f"rarft train: step 3: {cause}") for line in lines)
    run = tmp_path / "checkpoints" / "rarft"
    good, renamed = REMAINING[kind]
    assert names(run) == [f"checkpoint-{step}" for step in range(good, 0, -1)]
    assert len(list(run.glob("diverged-*"))) == (renamed is not None)
    assert not (run / DONE).exists()
    done = launch("-m", "rarft.cli")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"resuming from checkpoints/rarft/checkpoint-{good}" in done.stderr
    assert verify_checkpoint(run / "checkpoint-4")["world_size"] == 2
    assert (run / DONE).exists()


def test_fp16_overflow_is_skipped_up_to_a_limit():
    guard, finite, inf = StepGuard(fp16=True), torch.tensor(1.0), torch.tensor(float("inf"))
    guard.check(1, finite, finite)
    for step in range(2, 22):
        guard.check(step, finite, inf)
        assert guard.last_finite == 1  # checkpoints saved in between are not known to be good
    with pytest.raises(DivergedError, match="step 22: the gradient norm is infinite"):
        guard.check(22, finite, inf)
    guard = StepGuard(fp16=True)
    guard.check(1, finite, inf)
    with pytest.raises(DivergedError, match="step 2: the loss is infinite and the gradient norm is nan"):
        guard.check(2, inf, torch.tensor(float("nan")))
    guard = StepGuard(fp16=False)
    guard.check(1, finite, None)  # DeepSpeed may be configured not to compute it
    with pytest.raises(DivergedError, match="step 2: the gradient norm is infinite"):
        guard.check(2, finite, float("inf"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_weight(dtype, value):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 0), torch.nn.Linear(4, 5)).to(dtype)
    check_weights(model, 1)
    model[2].weight.data[4, 3] = value
    with pytest.raises(DivergedError, match=r"step 7: the weights after it are not finite \(2\.weight\)"):
        check_weights(model, 7)


def test_padding_of_partition_is_ignored(monkeypatch):
    """ZeRO-3 partitions 5 weights into 3 and 2. The last element of the second is uninitialized padding."""
    monkeypatch.setattr(torch.distributed, "get_rank", lambda group: 1)
    parameter = torch.nn.Parameter(torch.empty(0))
    parameter.ds_tensor = torch.tensor([1.0, 2.0, float("nan")])
    parameter.ds_tensor.status, parameter.ds_tensor.ds_numel = SimpleNamespace(name="AVAILABLE"), 3
    parameter.ds_numel, parameter.ds_process_group = 5, None
    model = SimpleNamespace(named_parameters=lambda: [("weight", parameter)])
    check_weights(model, 1)
    parameter.ds_tensor[1] = float("nan")
    with pytest.raises(DivergedError):
        check_weights(model, 1)
