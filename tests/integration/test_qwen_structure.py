"""Prompts, training and the pipeline on a checkpoint with the template, token IDs and structure of Qwen2.5-VL-7B."""

import json
import logging
import os
import shutil
import subprocess
import sys

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from helpers.qwen_fixture import save_checkpoint
from rarft import steps
from rarft.annotations.schema import read_samples
from rarft.errors import InputError
from rarft.models.qwen2_5_vl.load import load_processor
from rarft.models.qwen2_5_vl.prompt_check import check_prompts
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt
from rarft.prompts import PROMPTS, fill_prompt
from rarft.training.data import make_dataset
from rarft.video.sampling import FrameSampling

REWARD = """
def varied(completion_ids, **columns):
    return [sum(ids) % 100 / 100 for ids in completion_ids]  # most texts are empty, because the tokenizer is reduced
"""


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("qwen") / "model")


@pytest.fixture(scope="session")
def encoder(checkpoint):
    processor = load_processor(str(checkpoint))
    return PromptEncoder(processor, AutoConfig.from_pretrained(checkpoint), FrameSampling(1.0, min_frame_pixels=3136))


@pytest.fixture(scope="session")
def samples(validated):
    return read_samples(str(validated))


@pytest.fixture(scope="session")
def flags(checkpoint, validated, tmp_path_factory):
    """Return the flags of a short run on the first two queries."""
    folder = tmp_path_factory.mktemp("short")
    lines = (validated / "riq.jsonl").read_text().splitlines(keepends=True)
    (folder / "riq.jsonl").write_text("".join(lines[:2]))
    (folder / "own.py").write_text(REWARD)
    return [
        "--model_name_or_path", str(checkpoint), "--train_data_path", str(folder), "--use_cpu", "true",
        "--bf16", "false", "--num_generations", "2", "--max_completion_length", "6", "--report_to", "none",
        "--log_completions_steps", "0", "--video_min_frame_pixels", "3136",
        "--reward_funcs", "format", f"{folder / 'own.py'}:varied",
        "--learning_rate", "1e-4", "--lr_scheduler_type", "constant",
    ]  # fmt: skip


def train(flags, folder, *more):
    steps.train([*flags, "--deepspeed", "none", "--out", str(folder), *more])
    run = folder / "checkpoints" / "rarft"
    return run, [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]


def weights(checkpoint):
    return AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).state_dict()


@pytest.mark.parametrize("name", sorted(PROMPTS))
def test_prompt_has_query_once_and_one_video(encoder, samples, name):
    """Rows pass through Arrow, which fills the keys of the other parts with None."""
    rows = make_dataset(samples[:2], PROMPTS[name])
    assert "video" in rows[0]["prompt"][0]["content"][1]  # Arrow has added the key to the text part
    text = encoder.render(rows[0]["prompt"])
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert text.count(samples[0].query) == 1
    assert text.count("<|vision_start|><|video_pad|><|vision_end|>") == text.count("_pad|>") == 1
    assert (text.index(samples[0].query) < text.index("<|video_pad|>")) == (name == "rarft-text-first")
    prompt = encoder.encode(rows[0]["prompt"])
    T, H, W = prompt.grid_thw_13[0].tolist()
    assert (prompt.input_ids_L == 151656).sum() == T * H * W // 4


def test_positions_of_text_around_video(encoder, samples):
    prompt = encoder.encode(make_dataset(samples[:1], PROMPTS["rarft-text-first"])[0]["prompt"])
    is_video = prompt.input_ids_L == 151656
    start = int(is_video.nonzero()[0])
    T, H, W = prompt.grid_thw_13[0].tolist()
    before, rest = prompt.position_ids_3L[:, :start], prompt.position_ids_3L[:, start:]
    video, after = rest[:, is_video[start:]], rest[:, ~is_video[start:]]
    assert before.equal(torch.arange(start).expand(3, -1))
    # Two positions per second, floored for each time step, which spans two frames.
    times = [int(step * samples[0].duration / T * 2) for step in range(T)]
    expected = torch.cartesian_prod(torch.tensor(times), torch.arange(H // 2), torch.arange(W // 2)).T
    assert video.equal(expected + start)
    assert after.equal((int(video.max()) + 1 + torch.arange(after.shape[1])).expand(3, -1))


def test_chat_template_that_drops_query(encoder, samples, monkeypatch):
    official = encoder.processor.chat_template
    monkeypatch.setattr(encoder.processor, "chat_template", official.replace("{{ content['text'] }}", ""))
    with pytest.raises(InputError, match=r"^x: its chat template renders the query 0 times instead of 1"):
        check_prompts(samples, encoder, PROMPTS["rarft"], "x")
    video = "<|vision_start|><|video_pad|><|vision_end|>"
    monkeypatch.setattr(encoder.processor, "chat_template", official.replace(video, video * 2))
    with pytest.raises(InputError, match=r"^x: its chat template renders 2 videos"):
        check_prompts(samples, encoder, PROMPTS["rarft"], "x")


def test_prompt_template_that_repeats_query(encoder, samples, caplog):
    def warnings():
        return [record.getMessage() for record in caplog.records if record.name.startswith("rarft")]

    with caplog.at_level(logging.WARNING):
        check_prompts(samples, encoder, PROMPTS["rarft"], "x")
        assert warnings() == []
        check_prompts(samples, encoder, "{query}\n{video}\n{query}", "x")
    assert len(warnings()) == 1
    assert "contains {query} 2 times" in warnings()[0]


def test_placeholders_in_query_are_not_filled():
    assert fill_prompt("{query} in {video} of {duration} s", "{video} {duration}", 3.0) == (
        "{video} {duration} in ", " of 3.00 s",
    )  # fmt: skip
    assert video_prompt("", "after", "v")[0]["content"] == [
        {"type": "video", "video": "v"}, {"type": "text", "text": "after"},
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["rarft", "rarft-text-first"])
def test_inspect_prompt_shows_query_and_video(main, checkpoint, samples, validated, name):
    sample = samples[3]
    code, out, _ = main(
        "inspect-prompt", "--model_name_or_path", checkpoint, "--train_data_path", validated, "--prompt_type", name,
        "--id", sample.id, "--video_fps", "1", "--video_min_frame_pixels", "3136",
    )  # fmt: skip
    assert code == 0
    head, _, prompt = out.partition("prompt:\n")
    assert prompt.count(sample.query) == 1
    frames = int(sample.duration) // 2 * 2
    assert f"<|vision_start|><|video_pad|> x {frames // 2 * 4}<|vision_end|>" in prompt
    assert f"{sample.id}, {sample.task_type}" in head
    assert f"{frames}, 56 x 56 pixels" in head
    assert "0.00, " in head


def test_inspect_prompt_with_unknown_id(main, checkpoint, validated):
    code, _, error = main(
        "inspect-prompt", "--model_name_or_path", checkpoint, "--train_data_path", validated, "--id", "nope"
    )
    assert code == 2
    assert error.startswith("rarft inspect-prompt: --id nope: no such query")


def test_training(flags, checkpoint, tmp_path):
    run, entries = train(flags, tmp_path, "--max_steps", "1")
    assert all(entry["grad_norm"] > 0 for entry in entries if "reward" in entry)
    after, before = weights(run / "checkpoint-final"), weights(checkpoint)
    changed = {name for name, tensor in after.items() if not tensor.equal(before[name])}
    assert {"lm_head", "language_model", "visual"} <= {part for name in changed for part in name.split(".")}


@pytest.mark.long
def test_evaluation_during_training_and_resume(flags, checkpoint, tmp_path, main):
    saving = ("--save_strategy", "steps", "--save_steps", "1")
    data = flags[flags.index("--train_data_path") + 1]
    evaluating = ("--eval_strategy", "steps", "--eval_steps", "1", "--eval_data_path", data)
    run, entries = train(flags, tmp_path, "--max_steps", "2", *saving, *evaluating)
    assert [entry["step"] for entry in entries if "eval_reward" in entry] == [1, 2]
    after = weights(run / "checkpoint-final")
    # The same two steps, interrupted after the first.
    resumed_run = tmp_path / "resumed" / "checkpoints" / "rarft"
    resumed_run.mkdir(parents=True)
    shutil.copytree(run / "checkpoint-1", resumed_run / "checkpoint-1")
    resuming = ("--resume_from_checkpoint", "auto")
    resumed, _ = train(flags, tmp_path / "resumed", "--max_steps", "2", *saving, *evaluating, *resuming)
    again = weights(resumed / "checkpoint-final")
    assert all(tensor.equal(again[name]) for name, tensor in after.items())
    code, out, error = main(
        "evaluate", "--checkpoint", run / "checkpoint-final", "--data", data, "--out", "evaluation"
    )
    assert code == 0, error
    assert "2 queries" in out
    predictions = (tmp_path / "evaluation" / "predictions.jsonl").read_text().splitlines()
    assert len(predictions) == 2


def test_lora_trains_and_is_merged(flags, checkpoint, tmp_path):
    run, entries = train(flags, tmp_path, "--max_steps", "2", "--use_peft", "true")
    assert all(entry["grad_norm"] > 0 for entry in entries if "reward" in entry)
    after, before = weights(run / "checkpoint-final"), weights(checkpoint)
    changed = {name for name, tensor in after.items() if not tensor.equal(before[name])}
    projections = {
        f"model.language_model.layers.{layer}.self_attn.{p}_proj.weight" for layer in (0, 1) for p in "qkvo"
    }
    assert changed == projections


@pytest.mark.long
def test_training_on_two_ranks_under_zero3(flags, tmp_path):
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29561",
        "-m", "rarft.cli", "train", *flags, "--deepspeed", "zero3", "--max_steps", "2", "--out", str(tmp_path),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    log = (tmp_path / "checkpoints" / "rarft" / "training.jsonl").read_text().splitlines()
    assert [entry["grad_norm"] > 0 for entry in map(json.loads, log) if "reward" in entry] == [True, True]
    weights(tmp_path / "checkpoints" / "rarft" / "checkpoint-final")


@pytest.mark.long
def test_pipeline(flags, tmp_path, cli):
    steps.make_dataset(str(tmp_path / "sample"), {"train": 1, "eval": 1}, seed=5)
    own = [flag for flag in flags if flag != flags[3]]
    own.remove("--train_data_path")
    done = cli(
        "run", "--annotations", tmp_path / "sample" / "train.json", "--eval-annotations",
        tmp_path / "sample" / "eval.json", "--out", tmp_path / "run", "--", *own, "--deepspeed", "none",
        "--max_steps", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "run" / "evaluation" / "report.html").is_file()
