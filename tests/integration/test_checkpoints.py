"""Checkpoints: complete or set aside, rotated, resumed from to the same bits, and refused to another run."""

import json
import resource
import shlex
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from transformers import AutoModelForImageTextToText

from helpers.training import FLAGS, same_state, train, weights
from rarft.checkpoint.local import (
    CHECKPOINT_JSON,
    checkpoints_of,
    complete,
    good_step,
    mark_good,
    newest_complete,
    remove_temp_files,
    rotate,
    verified,
)
from rarft.checkpoint.resume import Resume
from rarft.errors import EXIT_PREEMPTED, InputError
from rarft.models.qwen2_5_vl.load import load_model
from rarft.storage.files import lock_folder
from rarft.storage.manifest import CorruptFolderError, hash_files, verify_folder

SETTINGS = {
    "model": "tiny", "data": "abc", "template": "{query}", "num_generations": 4, "seed": 42,
    "prompts_per_generation": 2, "num_iterations": 1, "curriculum": False,
    "queries_per_item": "pair", "refusable_pool": None, "use_peft": False, "fix_vit": False,
    "data_version": "a", "sampling": [2.0, 2809856, 12544],
}  # fmt: skip


def resumed(asked, run, settings=SETTINGS):
    return Resume(asked, run, None, True, settings).checkpoint()


def checkpoint(run, step, world_size=1, files=("model.safetensors", "rng_state.pth")):
    folder = run / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_bytes(name.encode() * 100)
    complete(folder, SETTINGS, world_size, hash_files(folder, CHECKPOINT_JSON))
    return folder


DAMAGE = {
    "no manifest": lambda folder: (folder / CHECKPOINT_JSON).unlink(),
    "half a manifest": lambda folder: (folder / CHECKPOINT_JSON).write_text('{"files": {'),
    "a manifest of something else": lambda folder: (folder / CHECKPOINT_JSON).write_text("[]"),
    "a file missing": lambda folder: (folder / "model.safetensors").unlink(),
    "a file cut off": lambda folder: (folder / "model.safetensors").write_bytes(b"model"),
    "a bit turned": lambda folder: (folder / "model.safetensors").write_bytes(b"Model.safetensors" * 100),
    "no random state": lambda folder: (folder / "rng_state.pth").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_with_its_reason_and_the_one_before_is_taken(tmp_path, damage, capfd):
    whole, broken = checkpoint(tmp_path, 2), checkpoint(tmp_path, 10)
    DAMAGE[damage](broken)
    assert newest_complete(tmp_path) == whole
    assert not broken.exists()
    aside = tmp_path / "corrupt-checkpoint-10"
    assert (aside / "reason.txt").read_text().strip()
    assert "checkpoint-10 is not complete" in capfd.readouterr().out
    checkpoint(tmp_path, 10)  # the run comes by there again, and dies there again
    DAMAGE[damage](tmp_path / "checkpoint-10")
    assert newest_complete(tmp_path) == whole
    assert (tmp_path / "corrupt-checkpoint-10-2").exists()


def test_one_from_elsewhere_sets_later_ones_aside_and_the_first_that_is_saved_stays(tmp_path):
    run = tmp_path / "run"
    for step in (50, 90, 100):
        checkpoint(run, step)
    elsewhere = checkpoint(tmp_path / "backup", 50)
    assert resumed(str(elsewhere), run) == elsewhere
    checkpoint(run, 60)
    mark_good(run, 60)
    rotate(run, 2)
    assert [folder.name for folder in checkpoints_of(run)] == ["checkpoint-60", "checkpoint-50"]
    assert (run / "superseded-checkpoint-100").exists()


def test_what_killed_processes_were_about_to_make_is_swept(tmp_path):
    (tmp_path / ".checkpoint-8.abc" / "checkpoint-8").mkdir(parents=True)
    (tmp_path / ".checkpoint-final.unfinished").mkdir()
    (tmp_path / ".checkpoint.json.12.tmp").write_text("")
    kept = checkpoint(tmp_path, 2)
    remove_temp_files(tmp_path)
    assert list(tmp_path.iterdir()) == [kept]


def test_the_random_state_of_every_rank_is_required(tmp_path):
    files = ("model.safetensors", "rng_state_0.pth", "rng_state_1.pth")
    assert verified(checkpoint(tmp_path, 2, 2, files))["step"] == 2
    with pytest.raises(CorruptFolderError, match=r"rng_state_1\.pth is missing"):
        verified(checkpoint(tmp_path, 4, 2, files[:2]))


def test_rotation_counts_complete_ones_and_keeps_the_one_in_use(tmp_path):
    for step in (2, 4, 6, 8, 10):
        checkpoint(tmp_path, step)
    DAMAGE["no manifest"](tmp_path / "checkpoint-8")
    DAMAGE["no manifest"](tmp_path / "checkpoint-4")  # its removal was cut short
    rotate(tmp_path, 2, in_use=[tmp_path / "checkpoint-2"])
    assert len(checkpoints_of(tmp_path)) == 5  # none is known to be good
    mark_good(tmp_path, 10)
    rotate(tmp_path, 2, in_use=[tmp_path / "checkpoint-2"])
    assert [folder.name for folder in checkpoints_of(tmp_path)] == [
        "checkpoint-10", "checkpoint-8", "checkpoint-6", "checkpoint-2"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("model", "other", "another --model_name_or_path: tiny, now other"),
        ("data", "def", "another --train_data_path"),
        ("num_generations", 8, "another --num_generations: 4, now 8"),
        ("queries_per_item", "all", "another --queries_per_item: pair, now all"),
        ("refusable_pool", 3, "another --refusable_pool: None, now 3"),
        ("seed", 1, "another --seed: 42, now 1"),
        ("fix_vit", True, "another --fix_vit: False, now True"),
        ("data_version", "b", "another --data_version: a, now b"),
        ("sampling", [1.0, 2809856, 12544], "another --video_fps or pixel budget"),
    ],
)
def test_a_setting_that_must_not_change_is_named(tmp_path, name, value, message):
    checkpoint(tmp_path, 2)
    with pytest.raises(InputError, match=message):
        resumed("auto", tmp_path, {**SETTINGS, name: value})


def test_a_run_that_begins_anew_does_not_write_among_anothers_checkpoints(tmp_path):
    checkpoint(tmp_path, 2)
    with pytest.raises(InputError, match="holds checkpoint-2 of an earlier run"):
        resumed(None, tmp_path)
    assert resumed("auto", tmp_path) == tmp_path / "checkpoint-2"


def test_going_on_from_an_earlier_one_sets_the_later_aside(tmp_path):
    first = checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4)
    DAMAGE["no manifest"](checkpoint(tmp_path, 6))
    mark_good(tmp_path, 4)
    assert resumed(str(first), tmp_path) == first
    assert [folder.name for folder in checkpoints_of(tmp_path)] == ["checkpoint-2"]
    for name in ("superseded-checkpoint-4", "corrupt-checkpoint-6"):
        assert (tmp_path / name / "reason.txt").read_text() == "the run was resumed from checkpoint-2\n"
    assert good_step(tmp_path) == 2  # nothing is known of the checkpoint-4 to come


def test_goodness_does_not_outlive_checkpoints(tmp_path):
    checkpoint(tmp_path, 2)
    DAMAGE["a bit turned"](checkpoint(tmp_path, 4))
    mark_good(tmp_path, 4)
    assert resumed("auto", tmp_path) == tmp_path / "checkpoint-2"
    assert good_step(tmp_path) == 2
    shutil.rmtree(tmp_path / "checkpoint-2")
    assert resumed("auto", tmp_path) is None
    assert good_step(tmp_path) == 0


def test_newest_good_checkpoint_is_not_rotated_for_one_that_is_not_known(tmp_path):
    for step in (2, 4, 6):
        checkpoint(tmp_path, step)
    mark_good(tmp_path, 4)
    rotate(tmp_path, 1)
    assert [folder.name for folder in checkpoints_of(tmp_path)] == ["checkpoint-6", "checkpoint-4"]
    mark_good(tmp_path, 6)
    rotate(tmp_path, 1)
    assert [folder.name for folder in checkpoints_of(tmp_path)] == ["checkpoint-6"]


SAVING = ("--save_strategy", "steps", "--save_steps", "2", "--max_steps", "6", "--resume_from_checkpoint", "auto")


@pytest.fixture(scope="module")
def uninterrupted(validated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return train(validated, folder, *SAVING)[0].parent


# Tells its own process to stop while the third step is computed.
TERMINATES = f"""
import os, signal
calls = []
def told(completions, **columns):
    calls.append(1)
    if len(calls) == 3 and os.environ.pop("TELL_TO_STOP", None):
        os.kill(os.getpid(), {int(signal.SIGTERM)})
    return [0.0] * len(completions)
"""


def test_sigterm_leaves_a_complete_checkpoint_and_the_resumed_run_ends_with_the_same_bits(
    validated, tmp_path, uninterrupted, monkeypatch
):
    monkeypatch.setenv("TELL_TO_STOP", "1")
    before = signal.getsignal(signal.SIGTERM)
    (tmp_path / "told.py").write_text(TERMINATES)
    flags = (*SAVING, "--reward_funcs", "format", "refuse_iou", "explain_correction", f"{tmp_path}/told.py:told")
    with pytest.raises(SystemExit) as stopped:
        train(validated, tmp_path, *flags)
    assert stopped.value.code == EXIT_PREEMPTED
    run = tmp_path / "checkpoints" / "rarft"
    assert [folder.name for folder in checkpoints_of(run)] == ["checkpoint-3", "checkpoint-2"]
    verified(run / "checkpoint-3")
    assert not (run / "DONE").exists()
    assert signal.getsignal(signal.SIGTERM) == before
    _, entries = train(validated, tmp_path, *flags)
    same_state(run / "checkpoint-6", uninterrupted / "checkpoint-6")
    assert [entry["step"] for entry in entries if "reward" in entry] == [1, 2, 3, 4, 5, 6]
    assert (run / "DONE").exists()


def test_a_run_killed_between_its_last_checkpoint_and_its_end_trains_no_step_more(validated, tmp_path, uninterrupted):
    run = tmp_path / "checkpoints" / "rarft"
    shutil.copytree(uninterrupted, run)
    (run / "DONE").unlink()
    shutil.rmtree(run / "checkpoint-final")
    final, entries = train(validated, tmp_path, *SAVING)
    assert [folder.name for folder in checkpoints_of(run)] == ["checkpoint-6", "checkpoint-4", "checkpoint-2"]
    before, after = weights(uninterrupted / "checkpoint-final"), weights(final)
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert [entry["step"] for entry in entries if "reward" in entry] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_is_done_is_not_done_again_and_a_changed_one_is(validated, tmp_path, capfd):
    flags = ("--max_steps", "1", "--resume_from_checkpoint", "auto")
    final, _ = train(validated, tmp_path, *flags)
    before = (final / "model.safetensors").stat().st_mtime_ns
    train(validated, tmp_path, *flags)
    assert "is done already" in capfd.readouterr().out
    assert (final / "model.safetensors").stat().st_mtime_ns == before
    train(validated, tmp_path, *flags, "--beta", "0.5")
    assert (final / "model.safetensors").stat().st_mtime_ns > before


def test_saves_fall_where_no_completion_waits_to_be_used(validated, tmp_path):
    flags = (
        "--steps_per_generation", "2", "--save_strategy", "steps", "--save_steps", "1", "--max_steps", "5",
        "--per_device_train_batch_size", "1", "--save_total_limit", "3",
    )  # fmt: skip
    final, _ = train(validated, tmp_path, *flags)
    assert [folder.name for folder in checkpoints_of(final.parent)] == ["checkpoint-5", "checkpoint-4", "checkpoint-2"]
    manifest = json.loads((final.parent / "checkpoint-4" / CHECKPOINT_JSON).read_text())
    assert {"model.safetensors", "rng_state.pth", "optimizer.pt", "rarft.json"} <= manifest["files"].keys()


def test_the_final_checkpoint_loads_where_there_is_only_transformers(uninterrupted, tmp_path):
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


def test_the_final_checkpoint_comes_in_shards_that_load(validated, tmp_path, monkeypatch):
    monkeypatch.setattr("rarft.training.trainer.MAX_SHARD", "1MB")
    final, _ = train(validated, tmp_path, "--max_steps", "1", "--learning_rate", "0")
    shards = sorted(final.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert verify_folder(final, CHECKPOINT_JSON)["step"] == 1
    loaded = AutoModelForImageTextToText.from_pretrained(final).state_dict()
    before = load_model("tiny", torch.float32).state_dict()
    assert loaded.keys() == before.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in loaded.items())


def test_checkpoints_that_will_not_fit_are_told_before_training(validated, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=10_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(InputError, match=r"0\.01 GB are free and the checkpoints take about 0\.0\d+ GB"):
        train(validated, tmp_path, *SAVING)
    assert checkpoints_of(tmp_path / "checkpoints" / "rarft") == []


def test_the_room_that_checkpoints_take_is_reckoned(uninterrupted, monkeypatch, validated, tmp_path):
    reckoned = []
    monkeypatch.setattr("rarft.training.callbacks.check_space", lambda _, needed: reckoned.append(needed))
    train(validated, tmp_path, "--save_strategy", "steps", "--save_steps", "2", "--max_steps", "6")
    weights = ("checkpoint-*/*.safetensors", "checkpoint-*/optimizer.pt")
    taken = sum(path.stat().st_size for pattern in weights for path in uninterrupted.glob(pattern))
    assert reckoned == [pytest.approx(taken, rel=0.05)]


def test_a_disk_that_fills_up_leaves_nothing_that_looks_complete(validated, tmp_path, uninterrupted):
    """The limit on a file's size stands for the disk: both end a write in its middle."""
    command = [sys.executable, "-m", "rarft.cli", "train", *FLAGS, "--train_data_path", str(validated), *SAVING]
    limit = 6_000_000  # bytes: the weights fit, the optimizer's state does not
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("rarft train: ")
    run = tmp_path / "checkpoints" / "rarft"
    assert [path.name for path in checkpoints_of(run)] == ["checkpoint-2"]
    with pytest.raises(CorruptFolderError):
        verified(run / "checkpoint-2")
    train(validated, tmp_path, *SAVING)
    same_state(run / "checkpoint-6", uninterrupted / "checkpoint-6")


def test_two_processes_do_not_train_into_one_folder(validated, tmp_path, monkeypatch):
    monkeypatch.setattr("rarft.storage.files._TIMEOUT_S", 0.0)
    run = tmp_path / "checkpoints" / "rarft"
    run.mkdir(parents=True)
    with lock_folder(run, "--exp_name"), pytest.raises(InputError, match="in use by another process"):
        train(validated, tmp_path, "--max_steps", "1")
    train(validated, tmp_path, "--max_steps", "1")


def test_a_rank_that_waits_for_a_dead_one_ends_soon_after_it_is_told_to(tmp_path):
    program = (
        "import os, signal, threading\n"
        "from rarft.training import preemption\n"
        "preemption._FIRST_PATIENCE = 1.0\n"
        "preemption.PreemptionCallback().on_train_begin(None, None, None)\n"
        "threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()\n"
        "stuck = threading.Lock(); stuck.acquire(); stuck.acquire()\n"  # as in a collective
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert "another rank is gone" in done.stderr


def test_ranks_live_where_their_launcher_is_the_first_process_of_a_container():
    child = "from rarft.distributed.launch import exit_with_parent; exit_with_parent(); print('trains')"
    parent = (
        "import os, subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {child!r}], env={{**os.environ, 'TORCHELASTIC_RUN_ID': 'x'}})\n"
    )
    command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc", sys.executable, "-c", parent]
    try:
        subprocess.run([*command[:6], "true"], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no process namespaces can be made here")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "trains", done.stderr[-2000:]
    # Where another program is process 1, that a rank is its child says that the launcher is gone.
    orphaned = f"TORCHELASTIC_RUN_ID=x {shlex.quote(sys.executable)} -c {shlex.quote(child)}; true"
    done = subprocess.run([*command[:6], "sh", "-c", orphaned], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr.strip()) == ("", "rarft train: torchrun has ended")
