"""Options of a training run, each tested on the tiny model."""

import json
import os
import re

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from helpers.pages import embedded
from helpers.training import train
from rarft.models.qwen2_5_vl import prompt_encoder
from rarft.training import prepare as prepare_module
from rarft.training import trainer as trainer_module
from rarft.training.data import TrainingDataset

# An epoch in two short steps.
SHORT = ("--per_device_train_batch_size", "8", "--num_generations", "2", "--max_completion_length", "8")


def losses(entries):
    return [entry["loss"] for entry in entries if "reward" in entry]


def changed(checkpoint, tiny):
    """Return the names of the weights that training changed."""
    before = tiny[0].state_dict()
    after = AutoModelForImageTextToText.from_pretrained(checkpoint, dtype=torch.float32).state_dict()
    assert after.keys() == before.keys()
    return {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}


def test_fix_vit_trains_only_the_merger(validated, tmp_path, tiny, monkeypatch):
    """Each video is encoded once."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLVisionBlock

    passes = []
    original = Qwen2_5_VLVisionBlock.forward
    monkeypatch.setattr(
        Qwen2_5_VLVisionBlock, "forward", lambda self, *a, **k: passes.append(self) or original(self, *a, **k)
    )
    checkpoint, entries = train(validated, tmp_path, "--max_steps", "2", "--fix_vit", "true")
    moved = {name for name in changed(checkpoint, tiny) if "visual" in name}
    assert moved
    assert all("visual.merger" in name for name in moved)
    # Two blocks, two prompts per step, two steps: one forward for rollout, reference and policy.
    assert len(passes) == 2 * 2 * 2
    assert len(losses(entries)) == 2


def test_fix_vit_with_and_without_prompt_sharing(validated, tmp_path):
    runs = {}
    for sharing in ("on", "off"):
        (tmp_path / sharing).mkdir()
        _, runs[sharing] = train(
            validated, tmp_path / sharing, "--max_steps", "2", "--fix_vit", "true", "--prompt_sharing", sharing
        )
    assert losses(runs["on"]) == pytest.approx(losses(runs["off"]), abs=1e-5)


@pytest.mark.parametrize("merge", ["true", "false"])
def test_lora_trains_only_the_language_model(validated, tmp_path, tiny, merge, monkeypatch):
    monkeypatch.setattr("trl.trainer.grpo_trainer.create_model_from_path", None)  # no reference model is loaded
    flags = ("--use_peft", "true", "--lora_r", "4", "--merge_lora", merge, "--learning_rate", "1e-2")
    checkpoint, entries = train(validated, tmp_path, "--max_steps", "2", *flags)
    assert all(entry["kl"] >= 0 for entry in entries if "reward" in entry)  # the base model, adapters off
    assert (checkpoint / "adapter_config.json").exists() == (merge == "false")
    if merge == "true":
        moved = changed(checkpoint, tiny)
        assert moved
        assert all(re.fullmatch(r".*language_model\..*\.[qkvo]_proj\.weight", name) for name in moved)
    else:
        adapters = json.loads((checkpoint / "adapter_config.json").read_text())
        assert (adapters["r"], adapters["lora_alpha"]) == (4, 16)


def test_lora_rate_warning(validated, tmp_path, caplog):
    flags = ("--use_peft", "true", "--max_steps", "1", "--learning_rate")
    for rate, count in (("5e-7", 1), ("1e-5", 0)):
        (tmp_path / rate).mkdir()
        train(validated, tmp_path / rate, *flags, rate)
        assert caplog.text.count(f"--learning_rate {rate.replace('-', '-0')} with --use_peft") == count


def test_lora_with_prompt_sharing_and_checkpointing(validated, tmp_path):
    flags = ("--max_steps", "2", "--use_peft", "true", "--lora_r", "4", "--learning_rate", "1e-2")
    runs = []
    for number, more in enumerate(([], ["--prompt_sharing", "off"], ["--gradient_checkpointing", "true"])):
        (tmp_path / str(number)).mkdir()
        runs.append(losses(train(validated, tmp_path / str(number), *flags, *more)[1]))
    assert runs[1] == pytest.approx(runs[0], abs=1e-5)
    assert runs[2] == pytest.approx(runs[0], abs=1e-5)
    assert abs(runs[0][1]) > 1e-6


def test_each_epoch_draws_its_rows(validated, tmp_path, monkeypatch):
    drawn = []
    original = TrainingDataset._draw
    monkeypatch.setattr(
        TrainingDataset, "_draw", lambda self, batch: drawn.append((self.epoch, batch)) or original(self, batch)
    )
    train(validated, tmp_path, "--num_train_epochs", "2", "--curriculum", "true", *SHORT)
    rows = 16  # queries of the split
    seen = {epoch: {index for e, batch in drawn if e == epoch for index in batch["index"]} for epoch in (0, 1)}
    assert seen == {0: set(range(rows)), 1: set(range(rows))}


def test_unreadable_video_is_skipped(data_with_broken_video, tmp_path, caplog, tiny):
    """It is logged and counted, and has zero loss."""
    data, broken = data_with_broken_video
    _, entries = train(data, tmp_path, "--num_train_epochs", "1", *SHORT)
    assert caplog.text.count("video skipped: ") == 1
    assert [entry["videos/skipped"] for entry in entries if "reward" in entry][-1] == 1
    alone = tmp_path / "alone"
    alone.mkdir()
    lines = [line for line in (data / "riq.jsonl").read_text().splitlines() if broken in line]
    (alone / "riq.jsonl").write_text("\n".join(lines) + "\n")
    checkpoint, entries = train(alone, alone, "--max_steps", "2")
    assert losses(entries) == [0.0, 0.0]
    assert changed(checkpoint, tiny) == set()


def test_too_many_unreadable_videos(main, data_with_broken_video, tmp_path):
    data, broken = data_with_broken_video
    rows = [json.loads(line) for line in (data / "riq.jsonl").read_text().splitlines()]
    # Without the recorded sizes, by which training would find the change before it starts.
    lines = [json.dumps({**row, "video_file": None}) for row in rows]
    (tmp_path / "riq.jsonl").write_text("\n".join(lines) + "\n")
    flags = ("--preset", "tiny", "--per_device_train_batch_size", "4", "--max_skipped_videos", "0")
    code, _, error = main("train", *flags, "--train_data_path", tmp_path)
    assert code == 1
    assert "unreadable videos: 1, more than --max_skipped_videos 0: " in error.splitlines()[-1]
    assert broken in error.splitlines()[-1]


def test_training_curves(validated, tmp_path):
    checkpoint, entries = train(
        validated, tmp_path, "--max_steps", "2", "--eval_strategy", "steps", "--eval_steps", "2",
        "--eval_data_path", str(validated), "--per_device_eval_batch_size", "4",
    )  # fmt: skip
    scored = [entry for entry in entries if "reward" in entry]
    for entry in scored:
        parts = [entry[f"time/{part}"] for part in ("decode", "rollout", "reward", "forward", "backward")]
        assert all(seconds >= 0 for seconds in parts)
        assert min(parts[1:]) > 0
        assert sum(parts) < entry["time/total"]
    (evaluated,) = [entry for entry in entries if "eval_reward" in entry]
    assert 0 <= evaluated["eval_rewards/format_reward"] <= 1
    page = (checkpoint.parent / "training.html").read_text()
    for word in ("Step 2 of 2.", "KL divergence", "Learning rate", "Parts of refuse_iou", "rollout", "eval_reward"):
        assert word in page
    logged = [entry["completions"] for entry in entries if "completions" in entry]
    assert [group["step"] for group in logged] == [1]  # of the preset's every 32
    assert logged == [
        {key: value for key, value in group.items() if key != "run"} for group in embedded(page, "completions")
    ]
    assert all(len(values) == len(logged[0]["texts"]) for values in logged[0]["rewards"].values())
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", page)


def test_frame_cache(validated, tmp_path, main):
    flags = ("--preset", "tiny", "--train_data_path", str(validated), "--frame_cache", str(tmp_path / "frames"))
    code, out, _ = main("cache-videos", *flags)
    assert code == 0
    assert "8 videos: 8 decoded" in out
    code, out, _ = main("cache-videos", *flags)
    assert "8 videos: 0 decoded" in out
    inodes = {path: path.stat().st_ino for path in (tmp_path / "frames").rglob("*.frames")}
    train(validated, tmp_path, "--max_steps", "2", "--frame_cache", str(tmp_path / "frames"))
    assert {path: path.stat().st_ino for path in (tmp_path / "frames").rglob("*.frames")} == inodes


def test_prompts_are_prefetched(validated, tmp_path, monkeypatch):
    import threading

    threads = []
    original = prompt_encoder.PromptEncoder.encode
    monkeypatch.setattr(
        prompt_encoder.PromptEncoder,
        "encode",
        lambda self, messages: threads.append(threading.current_thread().name) or original(self, messages),
    )
    train(validated, tmp_path, "--max_steps", "3", "--decode_workers", "1")
    assert set(threads) == {"rarft-decode_0"}


@pytest.fixture
def undo_determinism(monkeypatch):
    """Restore what `--full_determinism` sets for the whole process."""
    for name in ("CUDA_LAUNCH_BLOCKING", "CUBLAS_WORKSPACE_CONFIG", "FLASH_ATTENTION_DETERMINISTIC",
                 "ASCEND_LAUNCH_BLOCKING", "HCCL_DETERMINISTIC"):  # fmt: skip
        monkeypatch.setenv(name, "")
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = False


def test_full_determinism_in_rollout_and_loss(validated, tmp_path, monkeypatch, undo_determinism):
    """It is enabled before a model is loaded, remains so, and gives bitwise identical results on a CPU."""
    seen = {}

    def watch(owner, name):
        original = getattr(owner, name)

        def watched(*arguments, **options):
            seen[name] = (torch.are_deterministic_algorithms_enabled(), os.environ["CUBLAS_WORKSPACE_CONFIG"])
            return original(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    for owner, name in (
        (prepare_module, "_load_references"), (trainer_module, "generate"),
        (trainer_module.VideoGRPOTrainer, "_compute_loss"), (torch.optim.AdamW, "step"),
    ):  # fmt: skip
        watch(owner, name)
    runs = {}
    for flag in ("false", "true"):
        runs[flag] = train(validated, tmp_path / flag, "--max_steps", "2", "--full_determinism", flag)
        assert set(seen.values()) == {(True, ":16:8") if flag == "true" else (False, "")}
        assert len(seen) == 4
    (plain, entries), (deterministic, deterministic_entries) = runs.values()
    assert losses(entries) == losses(deterministic_entries)
    before, after = (load_file(path / "model.safetensors") for path in (plain, deterministic))
    assert before.keys() == after.keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
