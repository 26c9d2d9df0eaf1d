"""`rarft evaluate`: completions, finished predictions, gates, the report; killed, and shared by processes."""

import html
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from types import ModuleType

import pytest

from helpers.fake_vllm import FakeEngine, SamplingParams
from helpers.riq_items import read_lines
from rarft import steps
from rarft.annotations.schema import read_samples
from rarft.checkpoint.locate import checkpoint_path
from rarft.errors import InputError
from rarft.evaluation.generate import Predictor, in_batches
from rarft.evaluation.metrics import PredictionTable
from rarft.evaluation.predictions import read_predictions
from rarft.evaluation.report import console_table, render_report
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.reporting.training_curves import render_curves
from rarft.reporting.training_log import render_training, training_of


@pytest.fixture(scope="module")
def evaluated(validated, tmp_path_factory):
    """An evaluation of the truthful model beside the one that answers everything: its folder and its metrics."""
    out = tmp_path_factory.mktemp("evaluated")
    # As if training had led to it in two of three steps.
    checkpoint = tmp_path_factory.mktemp("run") / "checkpoint-2"
    shutil.copytree(checkpoint_path("tiny-truthful"), checkpoint)
    rewards = [{"step": step, "reward": 1.0 + step / 8, "rewards/format_reward": 1.0, "kl": 0.0} for step in (1, 2, 3)]
    log = "".join(f"{json.dumps(entry)}\n" for entry in rewards)
    (checkpoint.parent / "training.jsonl").write_text(log + '{"step": 4, "rew')
    others = {"base": "tiny", "also_evaluate": "tiny-truthful"}
    metrics = steps.evaluate(
        str(checkpoint), str(validated), str(out), categories="rules", gates=["ra_iou.mean>=base"], **others
    )
    return out, metrics


def test_it_writes_what_it_returns(evaluated):
    out, metrics = evaluated
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert not list(out.glob(".unfinished*"))
    rows = read_lines(out / "predictions.jsonl")
    assert len(rows) == metrics["samples"] == 16
    assert metrics["base"]["samples"] == 16
    low, high = metrics["intervals"]["ra_iou"]["mean"]
    assert low <= metrics["ra_iou"]["mean"] <= high
    assert metrics["comparison"]["ra_iou.mean"]["difference"] == pytest.approx(
        metrics["ra_iou"]["mean"] - metrics["base"]["ra_iou"]["mean"]
    )
    assert metrics["passed"] is True
    assert metrics["rt_iou"]["all"] is not None


def test_a_third_checkpoint_stands_beside_both(evaluated):
    out, metrics = evaluated
    assert metrics["third"]["ra_iou"] == metrics["ra_iou"] != metrics["base"]["ra_iou"]
    assert (out / "third-predictions.jsonl").read_bytes() == (out / "predictions.jsonl").read_bytes()
    header, *rows = console_table(metrics).splitlines()
    assert header.split()[-4:] == ["before", "after", "change", "tiny-truthful"]
    assert all(row.split()[-1] == row.split()[-3] for row in rows)
    page = (out / "report.html").read_text()
    assert re.search(r"<th[^>]*>p</th><th[^>]*>tiny-truthful</th>", page)
    assert "hard, tiny-truthful</td>" in page  # share refused by difficulty
    assert all(f"{name}, tiny-truthful</td>" in page for name in metrics["by_category"])  # and by mismatch category


def test_the_report_shows_the_training_that_led_to_the_checkpoint(evaluated):
    page = (evaluated[0] / "report.html").read_text()
    assert "<h2>Training</h2>" in page
    assert ">reward 1.25<" in page  # at its own step, and not at the run's last
    assert ">rewards/format_reward 1<" in page


def test_a_log_is_read_as_far_as_the_checkpoint_and_what_is_none_is_told(tmp_path, capsys):
    checkpoint = tmp_path / "checkpoint-2"
    checkpoint.mkdir()
    log = tmp_path / "training.jsonl"
    # A reward that applied to no completion of a step has no value there.
    log.write_text('{"step": 2, "reward": 1.0, "rewards/says_why": null}\n{"step": 3, "reward": 2.0}\n{"ste')
    entries = training_of(str(checkpoint), "--checkpoint")
    assert [entry["step"] for entry in entries] == [2]
    assert "says_why" not in render_training(entries)
    assert training_of("Qwen/Qwen2.5-VL-7B-Instruct", "--checkpoint") == []
    assert not capsys.readouterr().out
    log.write_text('[1, 2]\n{"video": "a.mp4"}\n')
    assert training_of(f"{checkpoint}/", "--checkpoint") == []
    assert "no curves of its training: training.jsonl beside it: a line without a step" in capsys.readouterr().out


def test_a_reward_that_never_applied_has_no_curve():
    entry = {"step": 1, "reward": 1.0, "rewards/says_why": None}
    assert "says_why" not in render_curves([entry], "run", 1)
    assert "rewards/says_why 0.5<" in render_curves([{**entry, "rewards/says_why": 0.5}], "run", 1)


def test_a_video_is_decoded_and_encoded_once_for_all_of_its_queries(validated):
    samples = read_samples(str(validated))
    predictor = Predictor("tiny", PromptConfig.load("tiny"))
    completions = [
        text for batch in in_batches(samples, 4) for text in predictor.complete([samples[index] for index in batch])
    ]
    assert len(completions) == 16
    assert predictor.backend.videos_encoded == len({sample.video for sample in samples}) == 8


def test_finished_predictions_give_the_same_metrics(evaluated, validated, tmp_path):
    out, metrics = evaluated
    again = steps.evaluate(
        None, str(validated), str(tmp_path / "out"), predictions=str(out / "predictions.jsonl"),
        base_predictions=str(out / "base-predictions.jsonl"), categories="rules",
    )  # fmt: skip
    for name in ("relevance", "ra_iou", "correction_similarity", "rewards", "intervals", "comparison"):
        assert again[name] == metrics[name]
    ids = tmp_path / "ids.jsonl"
    rows = read_lines(out / "predictions.jsonl")
    ids.write_text("\n".join(json.dumps({"id": r["sample"]["id"], "completion": r["completion"]}) for r in rows))
    assert (
        steps.evaluate(None, str(validated), str(tmp_path / "ids"), predictions=str(ids))["ra_iou"]
        == metrics["ra_iou"]
    )


PUBLISHED = [
    {
        "video": "a.mp4", "query": "q", "model_output": "<think>t</think><answer>10 to 16</answer>",
        "gt_relevant": True, "gt_timestamp": [10, 20], "gt_output": "<answer>10.00 to 20.00</answer>",
        "gt_categories": [], "difficulty": "original",
    },
    {
        "video": "a.mp4", "query": "r", "model_output": "<answer>nothing of the kind</answer>", "gt_relevant": False,
        "gt_timestamp": None, "gt_output": "<answer>there is no ring</answer>",
        "gt_categories": ["Object/ObjectExistence"], "hardness_level": "strong",
    },
    {
        "video": "b.mp4", "query": "s", "model_output": "<answer>1.0 to 2.0</answer>", "gt_relevant": 0,
        "gt_timestamp": [], "gt_output": "no", "gt_categories": "Attribute/Counting", "irrelevance_level": "weak",
    },
]  # fmt: skip


def test_the_published_format_is_read_as_it_is(tmp_path):
    (tmp_path / "published.json").write_text(json.dumps(PUBLISHED))
    metrics = steps.evaluate(None, None, str(tmp_path / "out"), predictions=str(tmp_path / "published.json"))
    assert metrics["relevance"]["confusion"] == {"tp": 1, "fp": 1, "fn": 0, "tn": 1}
    assert metrics["ra_iou"]["mean"] == pytest.approx((0.6 + 1 + 0) / 3)
    assert set(metrics["by_difficulty"]) == {"original", "hard", "easy"}
    assert metrics["by_category"]["Attribute/Counting"]["samples"] == 1
    assert 0 < metrics["refusal_similarity"]["true_negatives"] <= 1
    assert metrics["correction_similarity"]["all"] is None  # it holds no references


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_output": 3}, "model_output is no text"),
        ({"gt_relevant": "maybe"}, "gt_relevant is missing"),
        ({"gt_timestamp": [20, 10]}, "gt_timestamp is missing"),
        ({"video": 3}, "video is missing"),
    ],
)
def test_rows_that_cannot_be_used_are_told_and_counted(tmp_path, change, reason, capfd):
    file = tmp_path / "published.json"
    file.write_text(json.dumps([{**PUBLISHED[0], **change}, *PUBLISHED[1:]]))
    metrics = steps.evaluate(None, None, str(tmp_path / "out"), predictions=str(file))
    assert (metrics["samples"], metrics["unusable_rows"]) == (2, 1)
    assert f"row 0: {reason}" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "holds no prediction that can be used .it is empty"),
        ("{", "is neither a JSON list nor JSON Lines"),
        ('{"id": "x", "completion": "y"}', "its query is not in the data"),
        ('{"id": [1], "completion": "y"}', "has neither"),
        ('{"completion": "y"}', "has neither"),
    ],
)
def test_a_file_that_holds_no_predictions_is_refused(validated, tmp_path, content, message):
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        steps.evaluate(None, str(validated), str(tmp_path / "out"), predictions=str(tmp_path / "p.jsonl"))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_predictions_of_other_queries_are_no_base(evaluated, validated, tmp_path):
    rows = (evaluated[0] / "predictions.jsonl").read_text().splitlines()
    (tmp_path / "half.jsonl").write_text("\n".join(rows[:8]))
    with pytest.raises(InputError, match="give predictions of the same queries"):
        steps.evaluate(
            None, str(validated), str(tmp_path / "out"), predictions=str(evaluated[0] / "predictions.jsonl"),
            base_predictions=str(tmp_path / "half.jsonl"),
        )  # fmt: skip


def test_a_refusable_query_of_any_difficulty_has_its_place_in_the_report(tmp_path):
    rows = [{**PUBLISHED[0], "gt_relevant": False, "difficulty": name} for name in ("easy", "hard", "original")]
    rows = [{**row, "query": f"query {index}"} for index, row in enumerate([*rows, PUBLISHED[0]])]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    metrics = steps.evaluate(None, None, str(tmp_path), predictions=str(tmp_path / "p.json"))
    assert metrics["samples"] == 4
    page = (tmp_path / "report.html").read_text()
    places = [page.index(f">{name}, this checkpoint<") for name in ("easy", "hard", "original")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("name", "shown"), [("sft", "sft"), ("base", "third, base"), ("checkpoint-2", "third, checkpoint-2")]
)
def test_a_third_checkpoint_is_told_from_the_others_whatever_its_name(evaluated, validated, name, shown):
    metrics = {**evaluated[1], "third": {**evaluated[1]["third"], "checkpoint": name}}
    rows, _ = read_predictions(evaluated[0] / "predictions.jsonl", None, "predictions")
    page = render_report(metrics, dict.fromkeys(("checkpoint", "base", "third"), PredictionTable(rows)), [])
    assert f"<p class=note>base: {html.escape(rows[0].completion)}" in page
    assert f"<p class=note>{shown}: {html.escape(rows[0].completion)}" in page
    header, *figures = console_table(metrics).splitlines()
    assert header.endswith(shown)
    assert all(re.search(r"[+-]\d\.\d{3} +\d\.\d{3}$", line) for line in figures)


def test_published_fields_may_be_texts(tmp_path):
    row = {
        **PUBLISHED[0], "gt_relevant": "yes", "gt_timestamp": "10.0 to 20.0", "duration": "30.0",
        "gt_categories": "['Object/ObjectExistence', 'Attribute/Counting']",
    }  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps([row, {**row, "gt_timestamp": "[10.0, 20]", "model_output": None}]))
    metrics = steps.evaluate(None, None, str(tmp_path / "out"), predictions=str(tmp_path / "p.json"))
    assert metrics["samples"] == 2
    assert metrics["ra_iou"]["mean"] == pytest.approx(0.3)  # no output is no answer, and wrong
    assert metrics["by_position"]["middle"]["samples"] == 2
    assert set(metrics["by_category"]) == {"Object/ObjectExistence", "Attribute/Counting"}


def test_the_same_words_asked_of_two_segments_are_two_queries(tmp_path):
    rows = [{**PUBLISHED[0], "gt_timestamp": segment} for segment in ([10, 16], [1, 2])]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    file = str(tmp_path / "p.json")
    metrics = steps.evaluate(None, None, str(tmp_path / "out"), predictions=file, base_predictions=file)
    assert metrics["base"]["grounding"]["mean"] == metrics["grounding"]["mean"] == 0.5
    assert metrics["comparison"]["grounding.mean"]["difference"] == 0.0


def test_queries_without_a_prediction_and_repeated_ones_are_counted(evaluated, validated, tmp_path):
    rows = (evaluated[0] / "predictions.jsonl").read_text().splitlines()
    (tmp_path / "p.jsonl").write_text("\n".join([*rows[:10], rows[0]]))
    metrics = steps.evaluate(None, str(validated), str(tmp_path / "out"), predictions=str(tmp_path / "p.jsonl"))
    assert (metrics["samples"], metrics["unusable_rows"]) == (10, 7)


def test_a_judge_that_cannot_be_reached_is_told_before_anything_is_completed(validated, tmp_path):
    with pytest.raises(InputError, match=r"--judge-url .* cannot be reached"):
        steps.evaluate("tiny", str(validated), str(tmp_path), judge_url="http://127.0.0.1:9/v1", judge_model="m")
    assert list(tmp_path.iterdir()) == []


def test_a_hostile_completion_is_text_in_the_report(tmp_path):
    evil = "<answer><script>alert(1)</script><img src=x onerror=alert(2)> \ud83d</answer>"
    row = {**PUBLISHED[1], "model_output": evil, "query": "'\"><script>alert(3)</script>"}
    (tmp_path / "p.json").write_text(json.dumps([row]))
    steps.evaluate(None, None, str(tmp_path / "out"), predictions=str(tmp_path / "p.json"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "alert(3)" in page
    assert "<script>alert" not in page
    assert "<img src=x" not in page


def test_a_gate_that_is_not_passed_is_an_exit_code(evaluated, tmp_path, main):
    predictions = evaluated[0] / "base-predictions.jsonl"  # of a model that refuses nothing
    code, _, error = main("evaluate", "--predictions", predictions, "--out", tmp_path, "--gate", "ra_iou.mean>=0.9")
    assert code == 1
    assert re.fullmatch(
        r"rarft evaluate: 1 of 1 gates not passed: ra_iou\.mean>=0\.9: it is 0\.\d{4}", error.splitlines()[-1]
    )
    assert json.loads((tmp_path / "metrics.json").read_text())["passed"] is False
    code, _, error = main("evaluate", "--predictions", predictions, "--out", tmp_path, "--gate", "nonsense>=1")
    assert code == 2
    assert "no metric nonsense" in error


def test_the_report_shows_the_failures_with_pictures_and_loads_nothing(evaluated):
    page = (evaluated[0] / "report.html").read_text()
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", page)
    kinds = re.findall(r"<button value=(\w+)", page)
    assert set(re.findall(r"data-kind=(\w+)", page)) == set(kinds)
    assert page.count("data:image/jpeg;base64,") >= 3 * page.count("<article")
    assert "<td>ra_iou.mean&gt;=base</td><td>passed</td>" in page


def finish(folder, data, *flags, program=()):
    command = [*(program or [sys.executable, "-m", "rarft.cli"]), "evaluate", "--checkpoint", "tiny", "--data", data]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (folder / "log").open("a") as log:
        return subprocess.Popen(
            [*map(str, command), "--out", "out", "--batch-size", "1", *flags],
            cwd=folder, env=environment, stdout=log, stderr=log,
        )  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(validated, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    assert finish(folder, validated).wait() == 0, (folder / "log").read_text()
    return (folder / "out" / "predictions.jsonl").read_bytes()


def test_a_killed_evaluation_goes_on_to_the_same_bytes(validated, tmp_path, uninterrupted):
    process = finish(tmp_path, validated)
    while len(list(tmp_path.glob("out/.unfinished/*/*.json"))) < 3:
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert finish(tmp_path, validated).wait() == 0
    assert re.search(r"[3-9] of 16 batches were done before", (tmp_path / "log").read_text())
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == uninterrupted


def test_two_processes_share_the_data(validated, tmp_path, uninterrupted):
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    launcher = [*program, "--rdzv_endpoint", "localhost:0", "-m", "rarft.cli"]
    assert finish(tmp_path, validated, program=launcher).wait() == 0, (tmp_path / "log").read_text()[-3000:]
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == uninterrupted


def test_a_vllm_engine_completes_what_the_model_does(validated, tmp_path, tiny, evaluated, monkeypatch):
    vllm = ModuleType("vllm")
    vllm.SamplingParams = SamplingParams
    vllm.LLM = lambda model, limit_mm_per_prompt: FakeEngine(*tiny)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    steps.evaluate("tiny", str(validated), str(tmp_path), backend="vllm")
    base = [row["completion"] for row in read_lines(evaluated[0] / "base-predictions.jsonl")]
    assert [row["completion"] for row in read_lines(tmp_path / "predictions.jsonl")] == base


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "x"], "give either --checkpoint or --predictions"),
        (["--checkpoint", "tiny"], "--data is missing"),
        (["--predictions", "p", "--base", "tiny"], "--base goes with --checkpoint"),
        (["--predictions", "p", "--also-evaluate", "tiny"], "--also-evaluate goes with --checkpoint"),
        (["--checkpoint", "tiny", "--data", "p", "--backend", "nonsense"], "--backend nonsense: no such backend"),
        (
            ["--checkpoint", "tiny", "--data", "x", "--judge-url", "http://x"],
            "--judge-url and --judge-model go together",
        ),
        (["--checkpoint", "tiny", "--data", "x", "--batch-size", "0"], "is no whole number of at least 1"),
    ],
)
def test_settings_that_do_not_go_together_are_told(main, arguments, message):
    code, _, error = main("evaluate", "--out", "o", *arguments)
    assert code == 2
    assert message in error
