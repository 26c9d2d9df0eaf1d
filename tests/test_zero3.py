"""Real ranks under ZeRO-3 on a CPU, through the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText

from rarft import steps

BREVITY = "def brevity(completions, **columns):\n    return [1 / (1 + len(text)) for text in map(str, completions)]\n"


def launch(folder, program, ranks, port, *flags):
    """`rarft train` on so many ranks; returns the run's folder and its log entries."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks), "--master_port", str(port),
        *program, "train", "--preset", "tiny", "--deepspeed", "scripts/configs/zero3.json",
        "--num_generations", "4", "--warmup_steps", "0", *flags,
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    folder.mkdir(exist_ok=True)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    run = folder / "checkpoints" / "rarft"
    return run, [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def trained(with_a_broken_video, tmp_path_factory):
    """Two steps on two ranks, each followed by an evaluation; one video cannot be read: the run and its log."""
    data = str(with_a_broken_video[0])
    folder = tmp_path_factory.mktemp("zero3")
    steps.embed(data, str(folder / "embeddings"))
    return launch(
        folder, ["-m", "rarft.cli"], 2, 29541,
        "--train_data_path", data, "--embeddings", str(folder / "embeddings"), "--bf16", "true",
        "--max_steps", "2", "--per_device_train_batch_size", "4",
        "--evaluation_strategy", "steps", "--eval_steps", "1", "--eval_data_path", data,
        "--per_device_eval_batch_size", "4",
    )  # fmt: skip


def test_two_ranks_score_completions_with_the_real_encoder(trained):
    _, entries = trained
    scored = [entry for entry in entries if "reward" in entry]
    assert [entry["step"] for entry in scored] == [1, 2]
    for entry in scored:
        terms = [entry[f"rewards/{name}_reward"] for name in ("format", "refuse_iou", "explain_correction")]
        assert entry["reward"] == pytest.approx(sum(terms), abs=1e-3)
        assert 0 <= entry["explain_correction/refusal_score"] <= 1
    # Some correction was compared with its references, by the encoder that ZeRO-3 must not have partitioned.
    assert any(-1 <= entry.get("explain_correction/best_similarity", -2) <= 1 for entry in scored)


def test_a_video_that_one_rank_cannot_read_is_skipped_by_both(trained):
    _, entries = trained
    assert [entry["videos/skipped"] for entry in entries if "reward" in entry][-1] == 1


def test_two_ranks_evaluate_during_training(trained):
    _, entries = trained
    evaluated = [entry for entry in entries if "eval_reward" in entry]
    assert [entry["step"] for entry in evaluated] == [1, 2]
    for entry in evaluated:
        terms = [entry[f"eval_rewards/{name}_reward"] for name in ("format", "refuse_iou", "explain_correction")]
        assert entry["eval_reward"] == pytest.approx(sum(terms), abs=1e-3)


def test_the_gathered_checkpoint_reloads_and_was_trained(trained, tiny):
    run, _ = trained
    model = AutoModelForImageTextToText.from_pretrained(run / "checkpoint-final")
    before = tiny[0].state_dict()
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    assert any(not tensor.float().equal(before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize("lm_head", ["kept logits", "fused"])
def test_losses_on_two_ranks_equal_those_on_one(validated, tmp_path, lm_head):
    (tmp_path / "own.py").write_text(BREVITY)
    flags = [
        "--train_data_path", str(validated), "--max_steps", "3", "--learning_rate", "1e-3", "--bf16", "false",
        "--reward_funcs", f"{tmp_path}/own.py:brevity",
    ]  # fmt: skip
    if lm_head == "fused":  # for completions so long that their logits would not be kept
        flags += ["--max_completion_length", "200000", "--fix_vit", "true"]
    program = [str(Path(__file__).parent / "fixed_rollouts.py")]
    _, one = launch(tmp_path / "one", program, 1, 29543, *flags, "--per_device_train_batch_size", "4")
    _, two = launch(tmp_path / "two", program, 2, 29545, *flags, "--per_device_train_batch_size", "2")
    for name in ("loss", "kl", "grad_norm", "reward"):
        figures = [[entry[name] for entry in entries if "reward" in entry] for entries in (one, two)]
        assert len(figures[0]) == 3
        assert figures[1] == pytest.approx(figures[0], abs=1e-4, rel=1e-4)
    assert any(abs(entry["loss"]) > 1e-3 for entry in one if "reward" in entry)
