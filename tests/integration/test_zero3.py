"""Several ranks under ZeRO-3 on a CPU, by the command line."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from transformers import AutoModelForImageTextToText

from helpers.fixed_rollouts import fixed_rollouts
from helpers.paths import HELPERS, ROOT
from helpers.training import FLAGS, train
from rarft import steps
from rarft.checkpoint.local import verify_checkpoint
from rarft.training import trainer as trainer_module

BREVITY = """
import os, torch
def brevity(completions, **columns):
    with open("seeds", "a") as file:
        print(torch.initial_seed(), file=file)
    return [1 / (1 + len(text)) for text in map(str, completions)]
"""


ZERO3 = (
    "train", "--preset", "tiny", "--deepspeed", "scripts/configs/zero3.json", "--num_generations", "4",
    "--warmup_steps", "0",
)  # fmt: skip


def read_run(folder):
    """Return the run's folder and its log entries."""
    run = folder / "checkpoints" / "rarft"
    return run, [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(forks, data_with_broken_video, tmp_path_factory):
    """Train for two steps on two ranks, each followed by an evaluation, with one unreadable video."""
    data = data_with_broken_video[0]
    folder = tmp_path_factory.mktemp("zero3")
    steps.embed(str(data), str(folder / "embeddings"))
    (folder / "eval").mkdir()
    few = (data / "riq.jsonl").read_text().splitlines(keepends=True)[-4:]
    (folder / "eval" / "riq.jsonl").write_text("".join(few))
    arguments = [
        *ZERO3, "--train_data_path", data, "--embeddings", folder / "embeddings", "--bf16", "true",
        "--max_steps", "2", "--per_device_train_batch_size", "4",
        "--evaluation_strategy", "steps", "--eval_steps", "1", "--eval_data_path", "eval",
        "--per_device_eval_batch_size", "2",
    ]  # fmt: skip
    forks.run_ranks(2, arguments, folder)
    return read_run(folder)


def test_rewards_on_two_ranks(trained):
    _, entries = trained
    scored = [entry for entry in entries if "reward" in entry]
    assert [entry["step"] for entry in scored] == [1, 2]
    for entry in scored:
        terms = [entry[f"rewards/{name}_reward"] for name in ("format", "refuse_iou", "explain_correction")]
        assert entry["reward"] == pytest.approx(sum(terms), abs=1e-3)
        assert 0 <= entry["explain_correction/refusal_score"] <= 1
    # A correction was compared with its references by the encoder, which ZeRO-3 must not partition.
    assert any(-1 <= entry.get("explain_correction/best_similarity", -2) <= 1 for entry in scored)


def test_video_that_one_rank_cannot_read(trained):
    _, entries = trained
    assert [entry["videos/skipped"] for entry in entries if "reward" in entry][-1] == 1


def test_evaluation_on_two_ranks(trained):
    _, entries = trained
    evaluated = [entry for entry in entries if "eval_reward" in entry]
    assert [entry["step"] for entry in evaluated] == [1, 2]
    for entry in evaluated:
        terms = [entry[f"eval_rewards/{name}_reward"] for name in ("format", "refuse_iou", "explain_correction")]
        assert entry["eval_reward"] == pytest.approx(sum(terms), abs=1e-3)


def test_gathered_checkpoint_loads_and_differs(trained, tiny):
    run, _ = trained
    model = AutoModelForImageTextToText.from_pretrained(run / "checkpoint-final")
    before = tiny[0].state_dict()
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    assert any(not tensor.float().equal(before[name]) for name, tensor in model.state_dict().items())


@pytest.fixture(scope="module")
def train_fixed(forks, validated):
    """Function that trains with given completions, so that runs on different numbers of ranks can be compared."""

    def run(folder, ranks, *flags):
        folder.mkdir(exist_ok=True)
        (folder / "own.py").write_text(BREVITY)
        arguments = [
            *ZERO3, "--train_data_path", validated, "--learning_rate", "1e-4", "--bf16", "false",
            "--lr_scheduler_type", "constant", "--reward_funcs", "own.py:brevity",
            "--per_device_train_batch_size", 4 // ranks, *flags,
        ]  # fmt: skip
        forks.run_ranks(ranks, arguments, folder, HELPERS / "fixed_rollouts.py")
        return read_run(folder)

    return run


def values_by_step(entries, name):
    return {entry["step"]: entry[name] for entry in entries if "reward" in entry}


def assert_same_metrics(entries, expected, steps):
    for name in ("loss", "kl", "grad_norm", "reward"):
        wanted = {step: values_by_step(expected, name)[step] for step in steps}
        assert values_by_step(entries, name) == pytest.approx(wanted, abs=1e-4, rel=1e-4)


SAVING = ("--save_strategy", "steps", "--save_steps", "2", "--resume_from_checkpoint", "auto")


@pytest.fixture(scope="module")
def on_two_ranks(train_fixed, tmp_path_factory):
    """Train for three steps on two ranks, with a checkpoint; return the run's folder and its log entries."""
    return train_fixed(tmp_path_factory.mktemp("two"), 2, "--max_steps", "3", *SAVING)


def test_losses_on_two_ranks(on_two_ranks, train_fixed, tmp_path):
    _, one = train_fixed(tmp_path / "one", 1, "--max_steps", "3")
    assert any(abs(loss) > 1e-3 for loss in values_by_step(one, "loss").values())
    run, two = on_two_ranks
    assert_same_metrics(one, two, [1, 2, 3])
    assert verify_checkpoint(run / "checkpoint-2")["world_size"] == 2


@pytest.mark.long
def test_losses_on_two_ranks_with_fused_head(train_fixed, tmp_path):
    """The fused head is used if completions are too long to keep their logits."""
    flags = ("--max_completion_length", "200000", "--fix_vit", "true", "--max_steps", "2")
    _, one = train_fixed(tmp_path / "one", 1, *flags)
    _, two = train_fixed(tmp_path / "two", 2, *flags)
    assert_same_metrics(one, two, [1, 2])


@pytest.mark.long
def test_resume_on_other_numbers_of_ranks(on_two_ranks, train_fixed, tmp_path):
    run = tmp_path / "checkpoints" / "rarft"
    shutil.copytree(on_two_ranks[0] / "checkpoint-2", run / "checkpoint-2")
    shutil.copy(on_two_ranks[0] / "training.jsonl", run)
    train_fixed(tmp_path, 1, "--max_steps", "4", *SAVING)
    verify_checkpoint(run / "checkpoint-4")
    _, entries = train_fixed(tmp_path, 2, "--max_steps", "6", *SAVING)
    _, uninterrupted = train_fixed(tmp_path / "uninterrupted", 2, "--max_steps", "6")
    assert len(list((run / "checkpoint-6").glob("global_step*/*optim_states.pt"))) == 2
    seeds = list(map(int, (tmp_path / "seeds").read_text().split()))
    assert sorted(seeds) == [42 + 2, 42 + 2, *[42 + 8] * 2, *[42 + 9] * 2]  # by step and rank
    assert_same_metrics(entries, uninterrupted, [1, 2, 3, 4, 5, 6])


@pytest.mark.long
def test_run_killed_three_times_is_bit_exact():
    script = ROOT / "benchmarks" / "fault_injection.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "3", "--steps", "4", "--ranks", "1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
    assert " 0 differ" in done.stdout


# A reward that kills its own rank, once, during the third step.
KILLING_REWARD = """
import os, pathlib
calls = []
def kill(completions, **columns):
    calls.append(1)
    once = pathlib.Path("died")
    if os.environ["RANK"] == "1" and len(calls) == 3 and not once.exists():
        once.touch()
        os.kill(os.getpid(), 9)
    return [float(len(str(text))) for text in completions]
"""


@pytest.mark.long
def test_torchrun_restarts_after_lost_rank(validated, tmp_path):
    (tmp_path / "own.py").write_text(KILLING_REWARD)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--max_restarts", "1",
        "--rdzv_backend", "c10d", "--rdzv_endpoint", "localhost:0", "-m", "rarft.cli", "train", "--preset", "tiny",
        "--deepspeed", "zero3", "--num_generations", "4", "--per_device_train_batch_size", "1",
        "--train_data_path", str(validated), "--max_steps", "4", "--reward_funcs", "own.py:kill", *SAVING,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "died").exists()
    assert "resuming from checkpoints/rarft/checkpoint-2" in done.stderr
    verify_checkpoint(tmp_path / "checkpoints" / "rarft" / "checkpoint-4")


LORA = ("--use_peft", "true", "--gradient_checkpointing", "true", "--learning_rate", "1e-3")


def test_lora_gradients_of_several_prompts(forks, validated, tmp_path, monkeypatch):
    """ZeRO-3 with reentrant checkpointing sums the gradients of several prompts, as a process without it does."""
    (tmp_path / "own.py").write_text(BREVITY)
    flags = (*LORA, "--max_steps", "1", "--reward_funcs", "own.py:brevity", "--merge_lora", "false")
    arguments = [
        "train", *FLAGS, *flags, "--train_data_path", validated, "--deepspeed", "zero3", "--exp_name", "zero3",
    ]  # fmt: skip
    code, output = forks.run(arguments, tmp_path, program=HELPERS / "fixed_rollouts.py")
    assert code == 0, output[-3000:]
    sharded = json.loads((tmp_path / "checkpoints" / "zero3" / "training.jsonl").read_text().splitlines()[0])
    monkeypatch.setattr(trainer_module, "generate", fixed_rollouts)
    monkeypatch.chdir(tmp_path)
    _, plain = train(validated, tmp_path, *flags)
    assert sharded["grad_norm"] == pytest.approx(plain[0]["grad_norm"], rel=1e-3)


@pytest.mark.long
@pytest.mark.parametrize(
    "flags",
    [
        LORA,
        (*LORA, "--fix_vit", "true", "--gradient_checkpointing_kwargs", '{"use_reentrant": false}'),
        (*LORA, "--deepspeed", "zero2"),
        (*LORA, "--deepspeed", "none"),  # DDP
        (*LORA, "--deepspeed", "none", "--gradient_checkpointing_kwargs", '{"use_reentrant": true}'),
        (*LORA, "--gradient_accumulation_steps", "2", "--num_iterations", "2"),
        ("--gradient_checkpointing", "true"),
    ],
)
def test_gradients_on_two_ranks(train_fixed, tmp_path, flags):
    """They equal the gradients of one process without DeepSpeed."""
    _, one = train_fixed(tmp_path / "one", 1, *flags, "--deepspeed", "none", "--max_steps", "3")
    _, two = train_fixed(tmp_path / "two", 2, *flags, "--max_steps", "3")
    norms = [
        {entry["step"]: entry["grad_norm"] for entry in entries if "grad_norm" in entry} for entries in (one, two)
    ]
    assert list(norms[0]) == [1, 2, 3]
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


@pytest.mark.long
def test_lora_resumes(train_fixed, tmp_path):
    """Resuming from adapters gives the merged weights of an uninterrupted run."""
    flags = (*LORA, "--max_steps", "4", *SAVING)
    uninterrupted, _ = train_fixed(tmp_path / "uninterrupted", 2, *flags)
    assert (uninterrupted / "checkpoint-2" / "adapter_model.safetensors").exists()
    shutil.copytree(uninterrupted / "checkpoint-2", tmp_path / "resumed" / "checkpoints" / "rarft" / "checkpoint-2")
    resumed, _ = train_fixed(tmp_path / "resumed", 2, *flags)
    verify_checkpoint(resumed / "checkpoint-4")
    weights = [(run / "checkpoint-final" / "model.safetensors").read_bytes() for run in (uninterrupted, resumed)]
    assert weights[0] == weights[1]
