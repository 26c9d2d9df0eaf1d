"""Training with a vLLM engine. Each run is a process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas
import pytest

from helpers.timed_videos import KINDS, make_videos
from helpers.training import assert_same_state, weights

pytestmark = pytest.mark.vllm
HERE = Path(__file__).parent
FLAGS = ["--preset", "tiny", "--use_vllm", "true", "--per_device_train_batch_size", "2", "--num_generations", "4"]


def start(*arguments, script="cpu_engine.py"):
    environment = {**os.environ, "PYTHONPATH": f"{HERE.parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    command = [sys.executable, HERE / script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def train(data, out, *flags, code=0):
    process = start("train", *FLAGS, "--train_data_path", data, "--out", out, *flags)
    output = process.communicate()[0]
    assert process.returncode == code, output[-3000:]
    return out / "checkpoints" / "rarft", output


def log(run):
    return [entry for entry in map(json.loads, (run / "training.jsonl").open()) if "reward" in entry]


def completions(run):
    tables = [pandas.read_parquet(file) for file in sorted((run / "completions").glob("*.parquet"))]
    return [text for table in tables for text in table["completion"]]


@pytest.mark.parametrize("flags", [[], ["--fix_vit", "true"], ["--use_peft", "true", "--lora_r", "8"]], ids=str)
def test_engine_has_weights_of_every_step(validated, tmp_path, flags):
    process = start(validated, tmp_path, *flags, script="weight_sync.py")
    output = process.communicate()[0]
    assert process.returncode == 0, output[-3000:]
    result = json.loads(output.splitlines()[-1])
    table = result["steps"]
    print(*table, sep="\n")
    assert [row["step"] for row in table] == list(range(1, 9))
    assert max(row["with"] for row in table) < 1e-4
    trains_vision = "--use_peft" not in flags
    assert (max(row["without"] for row in table) > 1e-3) == trains_vision
    assert (result["passes"] > 0) == (not flags)  # a frozen tower has no backward pass


def test_seed_and_logged_difference(validated, tmp_path):
    flags = ["--max_steps", "2", "--temperature", "2", "--log_completions", "true", "--seed"]
    runs = [train(validated, tmp_path / name, *flags, name[0])[0] for name in ("1", "1b", "2")]
    texts = [completions(run) for run in runs]
    first, same, other = (weights(run / "checkpoint-final") for run in runs)
    assert texts[0] == texts[1]
    assert not set(texts[0]) & set(texts[2])
    assert all((first[name] == same[name]).all() for name in first)
    assert any((first[name] != other[name]).any() for name in first)
    # The engine never samples tokens of vision, which have a share of the model's probability at this temperature.
    assert all(entry["sampling/sampling_logp_difference/mean"] < 1e-3 for run in runs for entry in log(run))


def test_killed_run_resumes_to_the_same_state(validated, tmp_path):
    flags = ["--max_steps", "4", "--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "9"]
    whole, _ = train(validated, tmp_path / "whole", *flags)
    process = start("train", *FLAGS, "--train_data_path", validated, "--out", tmp_path / "killed", *flags)
    killed = tmp_path / "killed" / "checkpoints" / "rarft"
    while not (killed / "checkpoint-2" / "checkpoint.json").exists():
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.1)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    train(validated, tmp_path / "killed", *flags, "--resume_from_checkpoint", "auto")
    assert_same_state(whole / "checkpoint-4", killed / "checkpoint-4")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--vllm_max_model_length", "100"], "more than the 100 of the engine"),
        (["--vllm_mode", "server"], "--vllm_mode server: not supported"),
        (["--generation_kwargs", '{"nonsense": 1}'], "vLLM does not accept the settings of sampling"),
        (["--temperature", "3"], "temperature must be in [0, 2]"),
        (["--generation_kwargs", '{"n": 1}'], "--generation_kwargs: n cannot be set"),
        (["--vllm_tensor_parallel_size", "2"], "must divide world size"),
    ],
)
def test_bad_settings(validated, tmp_path, flags, message):
    output = train(validated, tmp_path, *flags, code=2)[1]
    assert message in output.splitlines()[-1]


def test_long_video(tmp_path, long_video):
    """A prompt of more tokens than vLLM batches, and than it reserves for by itself."""
    flags = ["--max_steps", "1", "--per_device_train_batch_size", "1", "--num_generations", "2", "--fix_vit", "true"]
    flags += ["--beta", "0", "--max_completion_length", "8", "--video_total_pixels", str(16_500 * 784)]
    run, _ = train(long_video, tmp_path, *flags)
    assert log(run)[0]["sampling/sampling_logp_difference/mean"] < 1e-3


def test_sampling_options(validated, tmp_path):
    run, _ = train(
        validated, tmp_path, "--max_steps", "1", "--vllm_structured_outputs_regex", "<think>a{3}</think>",
        "--generation_kwargs", '{"min_tokens": 3}', "--log_completions", "true",
    )  # fmt: skip
    assert set(completions(run)) == {"<think>aaa</think>"}


def test_engine_inputs_equal_training(tmp_path):
    videos = [video.path for video in make_videos(tmp_path)]
    process = start(*videos, script="engine_inputs.py")
    output = process.communicate()[0]
    assert process.returncode == 0, output[-3000:]
    assert output.splitlines()[-1] == str(len(KINDS))
