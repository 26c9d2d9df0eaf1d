"""Runs of the real pipeline definition by Kubeflow's local runner."""

import io
import json

import pytest

from pipelines.console import ConsoleFilter
from rarft.evaluation.report import METRICS_JSON
from rarft.references.encoder import default_encoder
from rarft.references.store import ReferenceStore

QUICK = ["--", "--max_steps", "2", "--per_device_train_batch_size", "2", "--num_generations", "4"]


def test_a_held_out_run(cli, sample_set, tmp_path):
    arguments = ["--annotations", sample_set / "train.json", "--eval-annotations", sample_set / "eval.json"]
    done = cli("run", *arguments, "--out", tmp_path, *QUICK)
    assert done.returncode == 0, done.stderr + done.stdout
    for step in ("[1/5] validate", "[2/5] embed", "[3/5] train", "[4/5] evaluate", "[5/5] promote"):
        assert step in done.stdout
    assert "training settings are the preset `tiny`" in done.stdout
    metrics = json.loads((tmp_path / "evaluation" / METRICS_JSON).read_text())
    assert metrics["in_sample"] is False
    assert metrics["samples"] == metrics["base"]["samples"] == 8
    predictions = [
        json.loads(line) for line in (tmp_path / "evaluation" / "predictions.jsonl").read_text().splitlines()
    ]
    assert all("eval_" in prediction["sample"]["video"] for prediction in predictions)
    assert (tmp_path / "validation" / "report.html").exists()
    assert (tmp_path / "checkpoints" / "rarft" / "checkpoint-final" / "model.safetensors").exists()
    (embeddings,) = tmp_path.glob("pipeline/*/embed/embeddings")
    ReferenceStore.load(str(embeddings), default_encoder())


def test_a_run_without_evaluation_data_is_labelled_in_sample(cli, sample_set, tmp_path):
    items = json.loads((sample_set / "train.json").read_text())[:2]
    # An annotation from elsewhere whose video is not here, as in a real file.
    items.append({**items[0], "video": "/data/somebody/ABCDE.mp4"})
    (tmp_path / "own.json").write_text(json.dumps(items))
    out = tmp_path / "out"
    done = cli("run", "--annotations", tmp_path / "own.json", "--video-root", sample_set, "--out", out, *QUICK)
    assert done.returncode == 0, done.stderr + done.stdout
    table = [line for line in done.stdout.splitlines() if "RA-IoU" in line or "Refusal" in line]
    assert table
    assert all("(in-sample)" in line for line in table)
    assert json.loads((out / "evaluation" / METRICS_JSON).read_text())["in_sample"] is True
    assert "In-sample" in (out / "evaluation" / "report.html").read_text()
    assert "2 quarantined: video not found" in done.stdout
    quarantine = (out / "validation" / "quarantine.jsonl").read_text().splitlines()
    assert len(quarantine) == 2
    assert all("video not found" in line for line in quarantine)


@pytest.mark.parametrize(
    ("content", "cause"),
    [('[{"video": "a.mp4", "GR', "is no complete JSON list"), ('[{"video": "a.mp4"}]', "every query was quarantined")],
)
def test_a_failing_step_ends_the_run_with_its_one_line_cause(cli, tmp_path, sample_set, content, cause):
    (tmp_path / "bad.json").write_text(content)
    done = cli("run", "--annotations", tmp_path / "bad.json", "--video-root", sample_set, "--out", tmp_path / "out")
    assert done.returncode == 2
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("rarft run: validate: ")
    assert cause in line
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "out" / "evaluation").exists()


def test_bad_training_flags_are_told_before_the_first_step(cli, sample_set, tmp_path):
    done = cli("run", "--annotations", sample_set / "train.json", "--out", tmp_path / "out", "--", "--nonsense", "3")
    assert done.returncode == 2
    assert "unrecognized arguments: --nonsense" in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_console_shows_steps_and_their_lines_and_the_log_everything():
    console, log = io.StringIO(), io.StringIO()
    output = (
        "12:00:00.000 - INFO - Running pipeline: 'rarft'\n"
        "----------------\n"
        "12:00:00.000 - INFO - Executing task \x1b[96m'train'\x1b[0m\n"
        "    [KFP Executor 2026-01-01 INFO]: Got executor_input:\n"
        '    {\n        "inputs": {\n        }\n    }\n'
        "    step 1 of 2\n"
        "    {not a dump}\n"
        "\n"
        "12:00:01.000 - ERROR - it broke\n"
        "12:00:01.000 - INFO - Task 'train' outputs:\n    checkpoint: 'x'\n"
        "----------------\n"
    )
    stream = ConsoleFilter(console, log, steps=4)
    for start in range(0, len(output), 7):
        stream.write(output[start : start + 7])
    assert console.getvalue() == "[1/4] train\nstep 1 of 2\n{not a dump}\nit broke\n"
    assert log.getvalue() == output
