"""Runs of the pipeline by Kubeflow's local runner."""

import io
import json
import re
import shlex
import signal
import subprocess
import sys

import boto3
import psutil
import pytest

from helpers.paths import ROOT
from helpers.s3_servers import buckets
from pipelines.console import ConsoleFilter
from rarft.checkpoint.source import CHECKPOINT_JSON
from rarft.embeddings.encoder import default_encoder
from rarft.embeddings.store import ReferenceStore
from rarft.evaluation.report import METRICS_JSON
from rarft.storage.location import LocalFolder, S3Folder
from rarft.storage.manifest import verify_folder
from rarft.storage.sync import download_folder

PAGE = (ROOT / "docs" / "kubeflow.md").read_text()
QUICK = ["--", "--max_steps", "2", "--per_device_train_batch_size", "2", "--num_generations", "4"]


@pytest.fixture
def store(tmp_path):
    """Buckets `riq` and `runs` of an S3 server."""
    with buckets("rclone", tmp_path / "objects", "riq", "runs"):
        yield boto3.client("s3")


def page_lines(kind):
    """Return the commands in the blocks of docs/kubeflow.md with a marker."""
    blocks = re.findall(rf"^```bash {kind}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.strip().splitlines()]


def content(store, key):
    return store.get_object(Bucket="runs", Key=key)["Body"].read()


@pytest.mark.long
def test_run_in_store_resumes_after_failure(cli, store, tmp_path):
    cli("make-dataset", "--out", "s3://riq/sample", "--train", "8", "--eval", "4", "--seed", "3")
    for line in page_lines("commands"):
        done = cli(*shlex.split(line)[1:])
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    store.put_object(Bucket="runs", Key="notes/plan.txt", Body=b"unrelated")
    command = shlex.split(page_lines("local")[1])[1:]
    arguments = [*command, "--work-dir", tmp_path / "scratch", "-p", "gates=ra_iou.mean>=base"]
    arguments += ["-p", "compare=tiny-truthful"]
    failed = cli(*arguments, "-p", "final_uri=s3://runs/notes", *QUICK)
    assert failed.returncode == 2, failed.stdout
    last = failed.stderr.strip().splitlines()[-1]
    assert last.startswith("rarft run: promote: --to s3://runs/notes: ")
    assert "Traceback" not in failed.stderr
    for number, step in enumerate(
        ("fingerprint", "convert", "validate", "negatives", "embed", "train", "evaluate", "promote"), 1
    ):
        assert f"[{number}/8] {step}\n" in failed.stderr
    assert b"Got executor_input" in content(store, "one/run.log")

    done = cli(*arguments, "-p", "final_uri=s3://runs/shipped", *QUICK)
    assert done.returncode == 0, done.stderr + done.stdout
    again = [line.split(":")[0] for line in done.stderr.splitlines() if "unchanged, reusing the cached result" in line]
    assert again == ["[2/8] convert", "[3/8] validate", "[4/8] negatives", "[5/8] embed", "[7/8] evaluate"]
    assert "already finished" in done.stderr
    metrics = json.loads(content(store, f"one/evaluation/{METRICS_JSON}"))
    assert (metrics["in_sample"], metrics["passed"], metrics["samples"]) == (False, True, 8)
    other = metrics["others"]["tiny-truthful"]
    assert other["checkpoint"] == "tiny-truthful"
    assert other["relevance"]["irrelevant"]["f1"] > metrics["base"]["relevance"]["irrelevant"]["f1"] == 0
    predictions = content(store, "one/evaluation/predictions.jsonl").splitlines()
    assert all("s3://riq/sample/videos/eval_" in json.loads(line)["sample"]["video"] for line in predictions)
    assert json.loads(content(store, "one/validation/report.json"))["counts"]["accepted"] == 16
    verify_promoted(tmp_path / "shipped")
    done_mark = json.loads(content(store, "one/checkpoints/rarft/DONE"))
    assert re.fullmatch("'[0-9a-f]{64}'", done_mark["data_version"])  # the fingerprint of the videos
    assert content(store, "notes/plan.txt") == b"unrelated"


def verify_promoted(folder):
    download_folder(S3Folder("s3://runs/shipped"), folder, CHECKPOINT_JSON)
    assert (
        verify_folder(folder, CHECKPOINT_JSON)["promoted_from"] == "s3://runs/one/checkpoints/rarft/checkpoint-final"
    )
    assert {"model.safetensors", METRICS_JSON} <= {path.name for path in folder.iterdir()}


@pytest.mark.long
def test_run_without_eval_data_is_in_sample(cli, sample_set, tmp_path):
    items = json.loads((sample_set / "train.json").read_text())[:2]
    # An annotation whose video does not exist, as in real files.
    items.append({**items[0], "video": "/data/somebody/ABCDE.mp4"})
    (tmp_path / "train.json").write_text(json.dumps(items))
    (tmp_path / "videos").symlink_to(sample_set / "videos")
    out = tmp_path / "out" / "mine"
    done = cli(*shlex.split(page_lines("local")[0])[1:], *QUICK, cwd=tmp_path)
    assert done.returncode == 0, done.stderr + done.stdout
    table = [line for line in done.stdout.splitlines() if "RA-IoU" in line or "Refusal" in line]
    assert table
    assert all("(in-sample)" in line for line in table)
    assert json.loads((out / "evaluation" / METRICS_JSON).read_text())["in_sample"] is True
    assert "In-sample" in (out / "evaluation" / "report.html").read_text()
    assert done.stderr.count("2 quarantined: video-not-found") == 1
    assert "using the preset `tiny`" in done.stderr
    assert (out / "checkpoints" / "rarft" / "checkpoint-final" / "model.safetensors").exists()
    (embeddings,) = out.glob("pipeline/*/embed/embeddings")
    ReferenceStore.load(LocalFolder(embeddings), default_encoder())
    quarantine = (out / "validation" / "quarantine.jsonl").read_text().splitlines()
    assert len(quarantine) == 2
    assert all("video not found" in line for line in quarantine)


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        ('[{"video": "a.mp4", "GR', "truncated or invalid JSON list"),
        ('[{"video": "a.mp4"}]', "all queries are quarantined"),
        ('[{"video": "a.mp4", "GRPO": [{"q": "a", "r": false, "a": "b"}]}]', "no videos under"),
    ],
)
def test_run_reports_cause_of_failed_step(forks, tmp_path, sample_set, content, cause):
    (tmp_path / "bad.json").write_text(content)
    arguments = ["run", "--annotations", "bad.json", "--video-root", sample_set, "--out", "out"]
    code, output = forks.run(arguments, tmp_path)
    assert code == 2
    line = output.strip().splitlines()[-1]
    assert line.startswith("rarft run: validate: ")
    assert cause in line
    assert "Traceback" not in output
    assert "finished with status" not in output
    assert not (tmp_path / "out" / "evaluation").exists()


@pytest.mark.long
def test_run_sigterm_stops_all_processes(sample_set, tmp_path):
    arguments = ["--annotations", sample_set / "train.json", "--out", tmp_path / "out", "--", "--max_steps", "500"]
    command = [sys.executable, "-m", "rarft.cli", "run", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while " training: " not in process.stderr.readline():
            assert process.poll() is None
        steps = psutil.Process(process.pid).children(recursive=True)
        assert steps
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=90)
    assert process.returncode == 143
    assert errors.strip().splitlines()[-1].endswith("WARNING: stopped; rerun the same command to resume")
    assert "Traceback" not in errors
    assert not [step for step in steps if step.is_running()]


def test_run_rejects_bad_training_flags(main, sample_set, tmp_path):
    code, _, errors = main("run", "--annotations", sample_set / "train.json", "--out", "out", "--", "--nonsense", "3")
    assert code == 2
    assert "unrecognized arguments: --nonsense" in errors
    assert not (tmp_path / "out").exists()


def test_console_filter():
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
        "12:00:02.000 - INFO - Task evaluate cache hit (key=0123); skipping execution.\n"
        "----------------\n"
    )
    stream = ConsoleFilter(console, log, steps=4)
    for start in range(0, len(output), 7):
        stream.write(output[start : start + 7])
    assert console.getvalue() == (
        "[1/4] train\nstep 1 of 2\n{not a dump}\nit broke\n[2/4] evaluate: unchanged, reusing the cached result\n"
    )
    assert log.getvalue() == output
