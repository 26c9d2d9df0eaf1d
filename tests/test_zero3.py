"""Two real ranks under ZeRO-3 on a CPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModelForImageTextToText

from rarft import steps

ZERO3 = {
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
    "bf16": {"enabled": "auto"},
    "train_micro_batch_size_per_gpu": "auto",
    "train_batch_size": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
    "optimizer": {
        "type": "AdamW",
        "params": {"lr": "auto", "betas": "auto", "eps": "auto", "weight_decay": "auto", "torch_adam": True},
    },
}


@pytest.fixture(scope="module")
def trained(validated, tmp_path_factory):
    """A run of two steps on two ranks: its folder and its log entries."""
    folder = tmp_path_factory.mktemp("zero3")
    steps.embed(str(validated), str(folder / "embeddings"))
    (folder / "zero3.json").write_text(json.dumps(ZERO3))
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29541",
        str(Path(__file__).parent / "zero3_on_cpu.py"), "train", "--preset", "tiny",
        "--train_data_path", str(validated), "--embeddings", str(folder / "embeddings"),
        "--deepspeed", str(folder / "zero3.json"), "--bf16", "true", "--max_steps", "2",
        "--per_device_train_batch_size", "2", "--num_generations", "4", "--warmup_steps", "0",
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    run = folder / "checkpoints" / "rarft"
    return run, [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]


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


def test_the_gathered_checkpoint_reloads_and_was_trained(trained, tiny):
    run, _ = trained
    model = AutoModelForImageTextToText.from_pretrained(run / "checkpoint-final")
    before = tiny[0].state_dict()
    assert {name: tensor.shape for name, tensor in model.state_dict().items()} == {
        name: tensor.shape for name, tensor in before.items()
    }
    assert any(not tensor.float().equal(before[name]) for name, tensor in model.state_dict().items())
