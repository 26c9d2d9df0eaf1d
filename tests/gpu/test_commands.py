"""The commands in bfloat16 on a GPU, with a checkpoint of the structure of Qwen2.5-VL-7B: `pytest tests/gpu`."""

import json
import math

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from tokenizers import Tokenizer

from helpers.qwen_fixture import save_checkpoint

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
REWARD = """
def varied(completion_ids, **columns):
    return [sum(ids) % 100 / 100 for ids in completion_ids]
"""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("qwen") / "model")


@pytest.fixture(scope="module")
def encoder(checkpoint, tmp_path_factory):
    """Return a folder of a sentence encoder, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("encoder") / "encoder"
    words = StaticEmbedding(Tokenizer.from_file(str(checkpoint / "tokenizer.json")), embedding_dim=8)
    SentenceTransformer(modules=[words], device="cpu").save(str(folder))
    return folder


RUNS = {
    "full": ["--deepspeed", "none"],
    "LoRA": ["--deepspeed", "none", "--use_peft", "true", "--merge_lora", "true"],
    "ZeRO-3": ["--deepspeed", "zero3"],
}


@pytest.mark.parametrize("more_flags", RUNS.values(), ids=RUNS)
def test_train_resume_evaluate(cli, checkpoint, encoder, validated, tmp_path, more_flags):
    (tmp_path / "own.py").write_text(REWARD)
    flags = [
        "--model_name_or_path", checkpoint, "--train_data_path", validated, "--bf16", "true", "--num_generations", "4",
        "--max_completion_length", "16", "--report_to", "none", "--log_completions_steps", "0", "--beta", "0.04",
        "--video_min_frame_pixels", "3136", "--reward_funcs", "format", f"{tmp_path / 'own.py'}:varied",
        "--save_steps", "1", "--out", tmp_path, "--encoder", encoder, *more_flags,
    ]  # fmt: skip
    for more in (["--max_steps", "1"], ["--max_steps", "2", "--resume_from_checkpoint", "auto"]):
        done = cli("train", *flags, *more)
        assert done.returncode == 0, done.stderr
        assert "vision attention: torch's varlen_attn" in done.stderr
    run = tmp_path / "checkpoints" / "rarft"
    steps = [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]
    losses = [entry["loss"] for entry in steps if "loss" in entry]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)
    flags = ["--checkpoint", run / "checkpoint-final", "--data", validated, "--encoder", encoder]
    done = cli("evaluate", *flags, "--out", tmp_path / "report")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "report" / "metrics.json").exists()
