"""Checkpoints: verification, exclusion, rotation, bit-exact resume, and refusal by another run."""

import json
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch
from transformers import AutoModelForImageTextToText

from helpers.training import FLAGS, assert_same_state, train, weights
from rarft.checkpoint.local import (
    CHECKPOINT_JSON,
    find_newest,
    good_step,
    list_checkpoints,
    mark_good,
    remove_temp_files,
    rotate,
    verify_checkpoint,
    write_checkpoint_manifest,
)
from rarft.checkpoint.resume import ResumeResolver
from rarft.errors import EXIT_PREEMPTED, InputError
from rarft.models.qwen2_5_vl.load import load_model
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.storage.files import lock_folder
from rarft.storage.manifest import CorruptFolderError, hash_files, verify_folder
from rarft.training.run_identity import find_difference

RESUME_KEY = {
    "model": "tiny", "data": "abc", "template": "{query}", "num_generations": 4, "seed": 42,
    "prompts_per_generation": 2, "num_iterations": 1, "curriculum": False,
    "queries_per_item": "pair", "refusable_pool": None, "use_peft": False, "fix_vit": False,
    "data_version": "a", "sampling": [2.0, 2809856, 12544],
}  # fmt: skip


def resolve(requested, run, key=RESUME_KEY):
    return ResumeResolver(requested, run, None, True, partial(find_difference, key)).resolve()


def checkpoint(run, step, world_size=1, files=("model.safetensors", "rng_state.pth")):
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_bytes(name.encode() * 100)
    write_checkpoint_manifest(folder, RESUME_KEY, world_size, hash_files(folder, CHECKPOINT_JSON))
    return folder


DAMAGE = {
    "no manifest": lambda folder: (folder / CHECKPOINT_JSON).unlink(),
    "truncated manifest": lambda folder: (folder / CHECKPOINT_JSON).write_text('{"files": {'),
    "another JSON": lambda folder: (folder / CHECKPOINT_JSON).write_text("[]"),
    "missing file": lambda folder: (folder / "model.safetensors").unlink(),
    "truncated file": lambda folder: (folder / "model.safetensors").write_bytes(b"model"),
    "flipped bit": lambda folder: (folder / "model.safetensors").write_bytes(b"Model.safetensors" * 100),
    "no RNG state": lambda folder: (folder / "rng_state.pth").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_corrupt_checkpoint_is_renamed(tmp_path, damage, caplog):
    """The reason is written into its folder, and the previous checkpoint is used."""
    valid, broken = checkpoint(tmp_path, 2), checkpoint(tmp_path, 10)
    DAMAGE[damage](broken)
    assert find_newest(tmp_path) == valid
    assert not broken.exists()
    renamed = tmp_path / "corrupt-checkpoint-10"
    assert (renamed / "reason.txt").read_text().strip()
    assert "checkpoint-10 is corrupt" in caplog.text
    checkpoint(tmp_path, 10)  # a later start saves it, and dies, again
    DAMAGE[damage](tmp_path / "checkpoint-10")
    assert find_newest(tmp_path) == valid
    assert (tmp_path / "corrupt-checkpoint-10-2").exists()


def test_resume_from_another_folder(tmp_path):
    """Later checkpoints of the run are excluded, and the first one that is saved then is not rotated."""
    run = tmp_path / "run"
    for step in (50, 90, 100):
        checkpoint(run, step)
    backup = checkpoint(tmp_path / "backup", 50)
    assert resolve(str(backup), run) == backup
    checkpoint(run, 60)
    mark_good(run, 60)
    rotate(run, 2)
    assert [folder.name for folder in list_checkpoints(run)] == ["checkpoint-60", "checkpoint-50"]
    assert (run / "superseded-checkpoint-100").exists()


def test_temp_files_of_killed_processes_are_removed(tmp_path):
    (tmp_path / ".checkpoint-8.abc" / "checkpoint-8").mkdir(parents=True)
    (tmp_path / ".checkpoint-final.unfinished").mkdir()
    (tmp_path / ".checkpoint.json.12.tmp").write_text("")
    kept = checkpoint(tmp_path, 2)
    remove_temp_files(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_rng_state_of_every_rank_is_required(tmp_path):
    files = ("model.safetensors", "rng_state_0.pth", "rng_state_1.pth")
    assert verify_checkpoint(checkpoint(tmp_path, 2, 2, files))["step"] == 2
    with pytest.raises(CorruptFolderError, match=r"rng_state_1\.pth is missing"):
        verify_checkpoint(checkpoint(tmp_path, 4, 2, files[:2]))


def test_rotation_keeps_complete_and_used_checkpoints(tmp_path):
    for step in (2, 4, 6, 8, 10):
        checkpoint(tmp_path, step)
    DAMAGE["no manifest"](tmp_path / "checkpoint-8")
    DAMAGE["no manifest"](tmp_path / "checkpoint-4")  # its removal was killed
    rotate(tmp_path, 2, in_use=[tmp_path / "checkpoint-2"])
    assert len(list_checkpoints(tmp_path)) == 5  # none is known to be good
    mark_good(tmp_path, 10)
    rotate(tmp_path, 2, in_use=[tmp_path / "checkpoint-2"])
    assert [folder.name for folder in list_checkpoints(tmp_path)] == [
        "checkpoint-10", "checkpoint-8", "checkpoint-6", "checkpoint-2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model", "other", "--model_name_or_path: tiny, now other"),
        ("data", "def", "--train_data_path"),
        ("num_generations", 8, "--num_generations: 4, now 8"),
        ("queries_per_item", "all", "--queries_per_item: pair, now all"),
        ("refusable_pool", 3, "--refusable_pool: None, now 3"),
        ("seed", 1, "--seed: 42, now 1"),
        ("fix_vit", True, "--fix_vit: False, now True"),
        ("data_version", "b", "--data_version: a, now b"),
        ("sampling", [1.0, 2809856, 12544], "--video_fps or pixel budget"),
    ],
)
def test_resume_with_changed_setting(tmp_path, name, value, message):
    checkpoint(tmp_path, 2)
    with pytest.raises(InputError, match=rf"saved with a different setting \({message}"):
        resolve("auto", tmp_path, {**RESUME_KEY, name: value})


def test_fresh_run_in_folder_with_checkpoints(tmp_path):
    checkpoint(tmp_path, 2)
    with pytest.raises(InputError, match="contains checkpoint-2 of an earlier run"):
        resolve(None, tmp_path)
    assert resolve("auto", tmp_path) == tmp_path / "checkpoint-2"


def test_rewind_excludes_later_checkpoints(tmp_path):
    first = checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4)
    DAMAGE["no manifest"](checkpoint(tmp_path, 6))
    mark_good(tmp_path, 4)
    assert resolve(str(first), tmp_path) == first
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-2"]
    for name in ("superseded-checkpoint-4", "corrupt-checkpoint-6"):
        assert (tmp_path / name / "reason.txt").read_text() == "the run was resumed from checkpoint-2\n"
    assert good_step(tmp_path) == 2  # the next checkpoint-4 is not known to be good


def test_good_step_does_not_outlive_checkpoints(tmp_path):
    checkpoint(tmp_path, 2)
    DAMAGE["flipped bit"](checkpoint(tmp_path, 4))
    mark_good(tmp_path, 4)
    assert resolve("auto", tmp_path) == tmp_path / "checkpoint-2"
    assert good_step(tmp_path) == 2
    shutil.rmtree(tmp_path / "checkpoint-2")
    assert resolve("auto", tmp_path) is None
    assert good_step(tmp_path) == 0


def test_rotation_keeps_newest_good_checkpoint(tmp_path):
    for step in (2, 4, 6):
        checkpoint(tmp_path, step)
    mark_good(tmp_path, 4)
    rotate(tmp_path, 1)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-6", "checkpoint-4"]
    mark_good(tmp_path, 6)
    rotate(tmp_path, 1)
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["checkpoint-6"]


SAVING = ("--save_strategy", "steps", "--save_steps", "2", "--max_steps", "4", "--resume_from_checkpoint", "auto")


@pytest.fixture(scope="module")
def uninterrupted(validated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    return train(validated, folder, *SAVING)[0].parent


# A reward that sends SIGTERM to its own process during the third step.
TERMINATING_REWARD = f"""
import os, signal
calls = []
def terminate(completions, **columns):
    calls.append(1)
    if len(calls) == 3 and os.environ.pop("SEND_SIGTERM", None):
        os.kill(os.getpid(), {int(signal.SIGTERM)})
    return [0.0] * len(completions)
"""


def test_resume_after_sigterm_is_bit_exact(validated, tmp_path, uninterrupted, monkeypatch):
    monkeypatch.setenv("SEND_SIGTERM", "1")
    handler = signal.getsignal(signal.SIGTERM)
    (tmp_path / "own.py").write_text(TERMINATING_REWARD)
    flags = (*SAVING, "--reward_funcs", "format", "refuse_iou", "explain_correction", f"{tmp_path}/own.py:terminate")
    with pytest.raises(SystemExit) as stopped:
        train(validated, tmp_path, *flags)
    assert stopped.value.code == EXIT_PREEMPTED
    run = tmp_path / "checkpoints" / "rarft"
    assert [folder.name for folder in list_checkpoints(run)] == ["checkpoint-3", "checkpoint-2"]
    verify_checkpoint(run / "checkpoint-3")
    assert not (run / "DONE").exists()
    assert signal.getsignal(signal.SIGTERM) == handler
    _, entries = train(validated, tmp_path, *flags)
    assert_same_state(run / "checkpoint-4", uninterrupted / "checkpoint-4")
    assert [entry["step"] for entry in entries if "reward" in entry] == [1, 2, 3, 4]
    assert (run / "DONE").exists()


def test_run_killed_after_last_checkpoint(validated, tmp_path, uninterrupted):
    run = tmp_path / "checkpoints" / "rarft"
    shutil.copytree(uninterrupted, run)
    (run / "DONE").unlink()
    shutil.rmtree(run / "checkpoint-final")
    final, entries = train(validated, tmp_path, *SAVING)
    assert [folder.name for folder in list_checkpoints(run)] == ["checkpoint-4", "checkpoint-2"]
    before, after = weights(uninterrupted / "checkpoint-final"), weights(final)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert [entry["step"] for entry in entries if "reward" in entry] == [1, 2, 3, 4]


def test_finished_run_is_not_repeated_unless_changed(validated, tmp_path, caplog):
    flags = ("--max_steps", "1", "--resume_from_checkpoint", "auto")
    final, _ = train(validated, tmp_path, *flags)
    before = (final / "model.safetensors").stat().st_mtime_ns
    train(validated, tmp_path, *flags)
    assert "is already finished" in caplog.text
    assert (final / "model.safetensors").stat().st_mtime_ns == before
    train(validated, tmp_path, *flags, "--beta", "0.5")
    assert (final / "model.safetensors").stat().st_mtime_ns > before


def test_saves_are_postponed_to_boundaries(validated, tmp_path):
    flags = (
        "--steps_per_generation", "2", "--save_strategy", "steps", "--save_steps", "1", "--max_steps", "5",
        "--per_device_train_batch_size", "1", "--save_total_limit", "3",
    )  # fmt: skip
    final, _ = train(validated, tmp_path, *flags)
    assert [folder.name for folder in list_checkpoints(final.parent)] == [
        "checkpoint-5",
        "checkpoint-4",
        "checkpoint-2",
    ]
    manifest = json.loads((final.parent / "checkpoint-4" / CHECKPOINT_JSON).read_text())
    assert {"model.safetensors", "rng_state.pth", "optimizer.pt", "rarft.json"} <= manifest["files"].keys()
    assert PromptConfig.load(str(final.parent / "checkpoint-4")) == PromptConfig.load("tiny")


@pytest.mark.long
def test_final_checkpoint_loads_with_transformers_only(uninterrupted, tmp_path):
    program = (
        "import sys, json; from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig\n"
        f"path = {str(uninterrupted / 'checkpoint-final')!r}\n"
        "model = AutoModelForImageTextToText.from_pretrained(path); AutoProcessor.from_pretrained(path)\n"
        "assert GenerationConfig.from_pretrained(path).eos_token_id == model.generation_config.eos_token_id\n"
        "assert not any(name.split('.')[0] in ('rarft', 'trl', 'peft') for name in sys.modules)\n"
        "print(type(model).__name__)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "Qwen2_5_VLForConditionalGeneration", done.stderr[-2000:]


def test_final_checkpoint_is_sharded(validated, tmp_path, monkeypatch):
    monkeypatch.setattr("rarft.training.trainer.MAX_SHARD", "1MB")
    final, _ = train(validated, tmp_path, "--max_steps", "1", "--learning_rate", "0")
    shards = sorted(final.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert verify_folder(final, CHECKPOINT_JSON)["step"] == 1
    loaded = AutoModelForImageTextToText.from_pretrained(final).state_dict()
    before = load_model("tiny", torch.float32).state_dict()
    assert loaded.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.items())


def test_full_disk_is_detected_before_training(validated, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(InputError, match=r"the checkpoints need about 0\.0\d+ GB, and 0\.01 GB are free"):
        train(validated, tmp_path, *SAVING)
    assert list_checkpoints(tmp_path / "checkpoints" / "rarft") == []


def test_estimate_of_disk_space(uninterrupted, monkeypatch, validated, tmp_path):
    estimates = []

    def stop(_, required):
        estimates.append(required)
        raise KeyboardInterrupt

    monkeypatch.setattr("rarft.training.callbacks.checkpoint.check_disk_space", stop)
    with pytest.raises(KeyboardInterrupt):
        train(validated, tmp_path, *SAVING)
    weights = ("checkpoint-*/*.safetensors", "checkpoint-*/optimizer.pt")
    taken = sum(path.stat().st_size for pattern in weights for path in uninterrupted.glob(pattern))
    assert estimates == [pytest.approx(taken, rel=0.05)]


@pytest.mark.long
def test_disk_that_fills_up_leaves_incomplete_checkpoint(validated, tmp_path, uninterrupted):
    """A limit on the size of a file simulates a full disk: both interrupt a write."""
    command = [sys.executable, "-m", "rarft.cli", "train", *FLAGS, "--train_data_path", str(validated), *SAVING]
    limit = 6_000_000  # bytes: enough for the weights, and too few for the optimizer state
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("rarft train: ")
    run = tmp_path / "checkpoints" / "rarft"
    assert [path.name for path in list_checkpoints(run)] == ["checkpoint-2"]
    with pytest.raises(CorruptFolderError):
        verify_checkpoint(run / "checkpoint-2")
    train(validated, tmp_path, *SAVING)
    assert_same_state(run / "checkpoint-4", uninterrupted / "checkpoint-4")


def test_run_folder_is_locked(validated, tmp_path, monkeypatch):
    monkeypatch.setattr("rarft.storage.files._LOCK_TIMEOUT_S", 0.0)
    run = tmp_path / "checkpoints" / "rarft"
    run.mkdir(parents=True)
    with lock_folder(run), pytest.raises(InputError, match="in use by another process"):
        train(validated, tmp_path, "--max_steps", "1")
    assert (run / ".lock").exists()  # the other process still holds it
    train(validated, tmp_path, "--max_steps", "1")


def test_sigterm_ends_a_rank_that_waits_for_a_dead_one(forks, tmp_path):
    (tmp_path / "program.py").write_text(
        "import os, signal, threading\n"
        "from rarft.training.callbacks import preemption\n"
        "preemption._FIRST_TIMEOUT_S = 1.0\n"
        "preemption.PreemptionCallback().on_train_begin(None, None, None)\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "stuck = threading.Lock(); stuck.acquire(); stuck.acquire()\n"  # as in a collective
    )
    code, output = forks.run([], tmp_path, program=tmp_path / "program.py")
    assert code == 1
    assert "another rank has died" in output


def test_ranks_of_launcher_that_is_process_1_of_container():
    child = "from rarft.distributed.launch import exit_with_parent; exit_with_parent(); print('trains')"
    parent = (
        "import os, subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], env={{**os.environ, 'TORCHELASTIC_RUN_ID': 'x'}})\n"
    )
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", sys.executable, "-c", parent]
    try:
        subprocess.run([*command[:6], "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("cannot create process namespaces")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "trains", done.stderr[-2000:]
    # If another program is process 1, a rank whose parent it is has lost its launcher.
    orphaned = f"TORCHELASTIC_RUN_ID=x {shlex.quote(sys.executable)} -c {shlex.quote(child)}; true"
    done = subprocess.run([*command[:6], "sh", "-c", orphaned], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr.strip()) == ("", "torchrun has ended")
