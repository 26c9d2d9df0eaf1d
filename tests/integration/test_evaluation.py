"""`rarft evaluate`: completions, finished predictions, gates, the report, resume, and several processes."""

import base64
import gzip
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from helpers.pages import chart_rows, embedded
from helpers.riq_items import read_lines
from rarft import steps
from rarft.annotations.schema import read_samples
from rarft.checkpoint.source import checkpoint_path
from rarft.completion import parse_completion
from rarft.errors import InputError
from rarft.evaluation import generate
from rarft.evaluation.generate import Predictor, in_batches
from rarft.evaluation.report import console_table
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.reporting.training_curves import draw_training, render_curves
from rarft.reporting.training_log import read_training_log
from rarft.video.reader import probe


@pytest.fixture(scope="module")
def evaluated(validated, tmp_path_factory):
    """Evaluate the truthful model and compare it with the one that never refuses; return the folder and metrics."""
    out = tmp_path_factory.mktemp("evaluated")
    # A run of three steps whose second checkpoint this is.
    checkpoint = tmp_path_factory.mktemp("run") / "checkpoint-2"
    shutil.copytree(checkpoint_path("tiny-truthful"), checkpoint)
    rewards = [{"step": step, "reward": 1.0 + step / 8, "rewards/format_reward": 1.0, "kl": 0.0} for step in (1, 2, 3)]
    log = "".join(f"{json.dumps(entry)}\n" for entry in rewards)
    (checkpoint.parent / "training.jsonl").write_text(log + '{"step": 4, "rew')
    metrics = steps.evaluate(
        str(checkpoint), str(validated), str(out), compare=["tiny", "tiny-truthful"], gates=["ra_iou.mean>=base"]
    )
    return out, metrics


def test_evaluate_writes_what_it_returns(evaluated):
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


def test_evaluate_compares_further_candidates(evaluated):
    out, metrics = evaluated
    assert metrics["others"]["tiny-truthful"]["ra_iou"] == metrics["ra_iou"] != metrics["base"]["ra_iou"]
    assert (out / "tiny-truthful-predictions.jsonl").read_bytes() == (out / "predictions.jsonl").read_bytes()
    header, *rows = console_table(metrics).splitlines()
    assert header.split()[-4:] == ["base", "checkpoint", "change", "tiny-truthful"]
    assert all(row.split()[-1] == row.split()[-3] for row in rows)
    page = (out / "report.html").read_text()
    assert re.search(r"<th[^>]*>p</th><th[^>]*>tiny-truthful</th>", page)
    charts = chart_rows(page)
    for group, names in (("difficulty", ["hard"]), ("mismatch category", metrics["by_category"])):
        rows = charts[f"Share of irrelevant queries refused, by {group}"]
        assert {row["group"] for row in rows if row["series"] == "tiny-truthful"} >= set(names)


def test_report_explains_its_tables(evaluated):
    """The page names the candidates, defines outcomes and metrics, and has links only for outcomes with queries."""
    out, metrics = evaluated
    page = (out / "report.html").read_text()
    assert "<dt>base</dt><dd>tiny, the reference that change and p compare with</dd>" in page
    for term in ("Correct", "RA-IoU", "Refusal similarity", "p"):
        assert f"<dt>{term}</dt><dd>" in page
    assert '<td class="number">0 (0.0 %)</td>' in page
    assert ">0 (0.0 %)</a>" not in page
    for group in metrics["by_category"]:
        rows = re.findall(rf"<td>{group}</td><td>([^<]*)</td>", page)
        assert rows == ["checkpoint", "base", "tiny-truthful"]
    row = re.search(r"<td>Refusal precision</td>(.*?)</tr>", page, re.DOTALL)[1]
    cells = re.findall(r'<td class="number">([^ <]*)', row)
    assert cells == ["1.000", "–", "–", "–", "1.000"]
    assert metrics["base"]["relevance"]["irrelevant"]["precision"] == 0.0


def test_report_shows_training_up_to_the_checkpoint(evaluated):
    page = (evaluated[0] / "report.html").read_text()
    assert "<h2>Training</h2>" in page
    last = chart_rows(page)["Mean reward by step"][-1]
    assert (last["x"], last["y"]) == (2, 1.25)  # of 3 steps
    assert {"format"} == {row["series"] for row in chart_rows(page)["Each reward"]}


def test_read_training_log_up_to_the_checkpoint(tmp_path, caplog):
    checkpoint = tmp_path / "checkpoint-2"
    checkpoint.mkdir()
    log = tmp_path / "training.jsonl"
    # A reward that applied to no completion of a step has no value there.
    log.write_text('{"step": 2, "reward": 1.0, "rewards/says_why": null}\n{"step": 3, "reward": 2.0}\n{"ste')
    entries = read_training_log(str(checkpoint))
    assert [entry["step"] for entry in entries] == [2]
    assert draw_training(entries).keys() == {"Mean reward by step"}
    assert read_training_log("Qwen/Qwen2.5-VL-7B-Instruct") == []
    assert not caplog.records
    log.write_text('[1, 2]\n{"video": "a.mp4"}\n')
    assert read_training_log(f"{checkpoint}/") == []
    assert "no training curves: training.jsonl cannot be read: a line has no step" in caplog.text


def test_curves_leave_out_a_reward_without_values():
    entry = {"step": 1, "reward": 1.0, "rewards/says_why": None}
    assert "says_why" not in render_curves([entry], "run", 1)
    page = render_curves([{**entry, "rewards/says_why": 0.5}], "run", 1)
    assert chart_rows(page)["Each reward"] == [{"series": "says_why", "x": 1.0, "y": 0.5}]


def test_compare_runs(main, tmp_path):
    for name, reward in (("a", 0.5), ("b", 0.75)):
        (tmp_path / name / "rarft").mkdir(parents=True)
        group = {"step": 3, "query": "q", "truth": "", "texts": [name], "rewards": {"format": [1.0]}, "parts": {}}
        entry = {"step": 4, "reward": reward, "kl": 0.25, "completions": group}
        (tmp_path / name / "rarft" / "training.jsonl").write_text(json.dumps(entry) + "\n")
    runs = [f"{tmp_path}/a/rarft", f"second={tmp_path}/b/rarft/"]
    code, output, error = main("compare-runs", *runs, "--out", tmp_path / "out" / "page.html")
    assert (code, output) == (0, f"report: {tmp_path}/out/page.html\n"), error
    page = (tmp_path / "out" / "page.html").read_text()
    names = [f"{tmp_path}/a/rarft", "second"]  # both end in `rarft`
    assert [(row["series"], row["y"]) for row in chart_rows(page)["Reward"]] == [(names[0], 0.5), (names[1], 0.75)]
    groups = embedded(page, "completions")
    assert [(group["run"], group["texts"]) for group in groups] == [(names[0], ["a"]), (names[1], ["b"])]
    code, _, error = main("compare-runs", tmp_path)
    assert code == 2
    assert error.endswith("contains no training.jsonl; pass the folder with the checkpoints of a run\n")


def test_predictor_encodes_each_video_once(validated, monkeypatch):
    encoded = []
    monkeypatch.setattr(
        generate, "encode_video", lambda *args, original=generate.encode_video: encoded.append(1) or original(*args)
    )
    samples = read_samples(str(validated))
    predictor = Predictor("tiny", PromptConfig.load("tiny"))
    completions = [
        text for batch in in_batches(samples, 4) for text in predictor.predict([samples[index] for index in batch])
    ]
    assert len(completions) == 16
    assert len(encoded) == len({sample.video for sample in samples}) == 8


def test_threshold_from_other_evaluation(evaluated, main, tmp_path):
    out, metrics = evaluated
    names = ["predictions.jsonl", "base-predictions.jsonl"]
    command = ["evaluate", "--predictions", out / names[0], "--compare", out / names[1], "--out", tmp_path / "out"]
    assert main(*command, "--threshold-from", out)[0] == 0
    again = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert again["threshold_from"] == str(out)
    for found, expected in ((again, metrics), (again["base"], metrics["base"])):
        assert found["refusal_score"]["threshold"] == expected["refusal_score"]["best_threshold"]
        assert found["refusal_score"]["scored"] == 16
    row = read_lines(out / names[0])[0]
    (tmp_path / "shares.jsonl").write_text(json.dumps(row | {"refusal_share": 0.5}) + "\n")
    command = ["evaluate", "--predictions", tmp_path / "shares.jsonl", "--out", tmp_path / "again"]
    code, _, error = main(*command, "--threshold-from", out)
    assert code == 2
    assert f"--threshold-from {out}: has no refusal_share.best_threshold of checkpoint; evaluate it there" in error
    code, _, error = main(*command, "--threshold-from", tmp_path)
    assert code == 2
    assert f"--threshold-from {tmp_path}/metrics.json: no such file" in error


def test_refusal_score_of_predictor(validated):
    """The refusal score of a confident model agrees with its completion; the samples are the same every time."""
    samples = read_samples(str(validated))[:2]
    rows = Predictor("tiny-truthful", PromptConfig.load("tiny-truthful")).predict(samples, True, num_samples=8)
    again = Predictor("tiny-truthful", PromptConfig.load("tiny-truthful")).predict(samples, True, num_samples=8)
    assert rows == again
    for row in rows:
        assert (row.refusal_score > 0.5) == parse_completion(row.completion).refuses
        assert row.refusal_share * 8 == pytest.approx(round(row.refusal_share * 8))


def test_evaluate_finished_predictions(evaluated, validated, tmp_path):
    out, metrics = evaluated
    again = steps.evaluate(
        None, str(validated), str(tmp_path / "out"), predictions=str(out / "predictions.jsonl"),
        compare=[str(out / "base-predictions.jsonl")],
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


def test_evaluate_published_format(tmp_path):
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
        ({"model_output": 3}, "model_output is not text"),
        ({"gt_relevant": "maybe"}, "gt_relevant is missing"),
        ({"gt_timestamp": [20, 10]}, "gt_timestamp is missing"),
        ({"gt_timestamp": "1,000 to 2,000"}, "gt_timestamp is missing"),
        ({"video": 3}, "video is missing"),
    ],
)
def test_evaluate_logs_and_counts_unusable_rows(tmp_path, change, reason, caplog):
    file = tmp_path / "published.json"
    file.write_text(json.dumps([{**PUBLISHED[0], **change}, *PUBLISHED[1:]]))
    metrics = steps.evaluate(None, None, str(tmp_path / "out"), predictions=str(file))
    assert (metrics["samples"], metrics["unusable_rows"]) == (2, 1)
    assert f"row 0: {reason}" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[]", "no usable prediction .the file is empty"),
        ("{", "neither a JSON list nor JSON Lines"),
        ('{"id": "x", "completion": "y"}', "the query is not in the data"),
        ('{"id": [1], "completion": "y"}', "needs .sample."),
        ('{"completion": "y"}', "needs .sample."),
    ],
)
def test_evaluate_rejects_a_file_without_predictions(validated, tmp_path, content, message):
    (tmp_path / "p.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        steps.evaluate(None, str(validated), str(tmp_path / "out"), predictions=str(tmp_path / "p.jsonl"))
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_compare_rejects_predictions_of_other_queries(evaluated, validated, tmp_path):
    rows = (evaluated[0] / "predictions.jsonl").read_text().splitlines()
    (tmp_path / "half.jsonl").write_text("\n".join(rows[:8]))
    with pytest.raises(
        InputError,
        match=r"--compare .*half.jsonl: 8 predictions for 16 queries.*; pass predictions of the same queries",
    ):
        steps.evaluate(
            None, str(validated), str(tmp_path / "out"), predictions=str(evaluated[0] / "predictions.jsonl"),
            compare=[str(tmp_path / "half.jsonl")],
        )  # fmt: skip


def test_report_orders_refusals_by_difficulty(tmp_path):
    rows = [{**PUBLISHED[0], "gt_relevant": False, "difficulty": name} for name in ("easy", "hard", "original")]
    rows = [{**row, "query": f"query {index}"} for index, row in enumerate([*rows, PUBLISHED[0]])]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    metrics = steps.evaluate(None, None, str(tmp_path), predictions=str(tmp_path / "p.json"))
    assert metrics["samples"] == 4
    rows = chart_rows((tmp_path / "report.html").read_text())["Share of irrelevant queries refused, by difficulty"]
    assert [row["group"] for row in rows] == ["easy", "hard", "original"]


def test_compare_names_and_mixed_candidates(evaluated, validated, tmp_path):
    """Checkpoints and finished predictions are compared under the given names, or under names from their paths."""
    out, metrics = evaluated
    finished = out / "base-predictions.jsonl"
    compare = [f"start={finished}", "tiny-truthful", str(finished), str(finished)]
    found = steps.evaluate("tiny-truthful", str(validated), str(tmp_path), compare=compare, gates=["ra_iou.mean>base"])
    assert found["base"]["name"] == "start"
    assert found["passed"]
    assert found["others"].keys() == {"tiny-truthful", "base-predictions", "base-predictions-2"}
    assert found["base"]["ra_iou"] == found["others"]["base-predictions-2"]["ra_iou"] == metrics["base"]["ra_iou"]
    page = (tmp_path / "report.html").read_text()
    data = embedded(page, "data")
    assert [one["name"] for one in data["candidates"]] == ["checkpoint", "start", *found["others"]]
    for index in (1, 3):  # start and base-predictions-2
        assert embedded(page, f"completion-{index}") == [row["completion"] for row in read_lines(finished)]
    header, *figures = console_table(found).splitlines()
    assert header.split()[-6:] == ["start", "checkpoint", "change", *found["others"]]
    # The reference refuses nothing, so that the precision of its refusals is undefined.
    (undefined,) = (line for line in figures if line.startswith("Refusal precision"))
    assert undefined.split()[2:] == ["-", "1.000", "-", "1.000", "-", "-"]
    figures.remove(undefined)
    assert all(re.search(r"[+-]\d\.\d{3}( +\d\.\d{3}){3}$", line) for line in figures)
    # A later evaluation into the same folder removes the predictions of candidates that it does not have.
    steps.evaluate(None, None, str(tmp_path), predictions=str(finished), compare=[f"base={finished}"])
    assert {path.name for path in tmp_path.glob("*.jsonl")} == {"predictions.jsonl", "base-predictions.jsonl"}


def test_published_fields_as_text(tmp_path):
    row = {
        **PUBLISHED[0], "gt_relevant": "yes", "gt_timestamp": "10.0 to 20.0", "duration": "30.0",
        "gt_categories": "['Object/ObjectExistence', 'Attribute/Counting']",
    }  # fmt: skip
    (tmp_path / "p.json").write_text(json.dumps([row, {**row, "gt_timestamp": "[10.0, 20]", "model_output": None}]))
    metrics = steps.evaluate(None, None, str(tmp_path / "out"), predictions=str(tmp_path / "p.json"))
    assert metrics["samples"] == 2
    assert metrics["ra_iou"]["mean"] == pytest.approx(0.3)  # a missing output counts as a wrong answer
    assert metrics["by_position"]["middle"]["samples"] == 2
    assert set(metrics["by_category"]) == {"Object/ObjectExistence", "Attribute/Counting"}


@pytest.mark.parametrize(
    ("encoding", "zipped", "is_list"),
    [("utf-8-sig", False, True), ("utf-16", False, False), ("utf-8", True, True), ("utf-16", True, False)],
)
def test_predictions_in_other_encodings(tmp_path, encoding, zipped, is_list):
    rows = [{**PUBLISHED[0], "gt_timestamp": "0:10 to 0:20"}, {**PUBLISHED[1], "query": "ein Gerät"}]
    text = json.dumps(rows, ensure_ascii=False) if is_list else "\n".join(json.dumps(row) for row in rows)
    content = text.encode(encoding)
    name = f"p.json{'' if is_list else 'l'}{'.gz' if zipped else ''}"
    (tmp_path / name).write_bytes(gzip.compress(content) if zipped else content)
    file = str(tmp_path / name)
    metrics = steps.evaluate(None, None, str(tmp_path / "out"), predictions=file, compare=[file])
    assert (metrics["samples"], metrics["ra_iou"]["mean"]) == (2, pytest.approx((0.6 + 1) / 2))
    assert metrics["base"]["ra_iou"] == metrics["ra_iou"]


def test_malformed_line_of_predictions_is_counted(tmp_path, caplog):
    lines = [json.dumps(row) for row in PUBLISHED]
    (tmp_path / "p.jsonl").write_text("\n".join([*lines[:2], lines[2][:40]]))
    metrics = steps.evaluate(None, None, str(tmp_path / "out"), predictions=str(tmp_path / "p.jsonl"))
    assert (metrics["samples"], metrics["unusable_rows"]) == (2, 1)
    assert "row 2: not valid JSON" in caplog.text


def test_queries_differ_by_segment(tmp_path):
    rows = [{**PUBLISHED[0], "gt_timestamp": segment} for segment in ([10, 16], [1, 2])]
    (tmp_path / "p.json").write_text(json.dumps(rows))
    file = str(tmp_path / "p.json")
    metrics = steps.evaluate(None, None, str(tmp_path / "out"), predictions=file, compare=[file])
    assert metrics["base"]["grounding"]["mean"] == metrics["grounding"]["mean"] == 0.5
    assert metrics["comparison"]["grounding.mean"]["difference"] == 0.0


def test_evaluate_counts_missing_and_repeated_queries(evaluated, validated, tmp_path):
    rows = (evaluated[0] / "predictions.jsonl").read_text().splitlines()
    (tmp_path / "p.jsonl").write_text("\n".join([*rows[:10], rows[0]]))
    metrics = steps.evaluate(None, str(validated), str(tmp_path / "out"), predictions=str(tmp_path / "p.jsonl"))
    assert (metrics["samples"], metrics["unusable_rows"]) == (10, 7)


def test_unreachable_judge_fails_before_generation(validated, tmp_path):
    with pytest.raises(InputError, match=r"judge http://127\.0\.0\.1:9/v1: cannot be reached"):
        steps.evaluate("tiny", str(validated), str(tmp_path), judge_url="http://127.0.0.1:9/v1", judge_model="m")
    assert list(tmp_path.iterdir()) == []


def test_report_escapes_completions(tmp_path):
    evil = "<answer><script>alert(1)</script><img src=x onerror=alert(2)> \ud83d</answer>"
    row = {**PUBLISHED[1], "model_output": evil, "query": "'\"><script>alert(3)</script>"}
    (tmp_path / "p.json").write_text(json.dumps([row]))
    steps.evaluate(None, None, str(tmp_path / "out"), predictions=str(tmp_path / "p.json"))
    page = (tmp_path / "out" / "report.html").read_text()
    assert "alert(3)" in embedded(page, "data")["queries"]["query"][0]
    assert "<script>alert" not in page
    assert "<img src=x" not in page


def test_failed_gate_exit_code(evaluated, tmp_path, main):
    predictions = evaluated[0] / "base-predictions.jsonl"  # of a model that refuses nothing
    code, _, error = main("evaluate", "--predictions", predictions, "--out", tmp_path, "--gate", "ra_iou.mean>=0.9")
    assert code == 1
    assert re.fullmatch(
        r"rarft evaluate: 1 of 1 gates not passed: ra_iou\.mean>=0\.9: value 0\.\d{4}", error.splitlines()[-1]
    )
    assert json.loads((tmp_path / "metrics.json").read_text())["passed"] is False
    code, _, error = main("evaluate", "--predictions", predictions, "--out", tmp_path, "--gate", "nonsense>=1")
    assert code == 2
    assert "--gate 'nonsense>=1': unknown metric nonsense" in error


def test_report_is_one_file_with_all_queries(evaluated):
    out, metrics = evaluated
    page = (out / "report.html").read_text()
    assert not re.search(r"(src|href)=['\"]?(https?:)?//", page)
    data, rows = embedded(page, "data"), read_lines(out / "predictions.jsonl")
    assert data["queries"]["id"] == [row["sample"]["id"] for row in rows]
    scores = data["candidates"][0]["scores"]
    assert np.mean(scores["RA-IoU"]) == pytest.approx(metrics["ra_iou"]["mean"], abs=1e-4)
    assert scores["reward"] == [pytest.approx(sum(row["rewards"].values()), abs=1e-4) for row in rows]
    parts = [row["reward_parts"].get("refuse_iou/iou") for row in rows]
    assert scores["refuse_iou/iou"] == [part if part is None else pytest.approx(part, abs=1e-4) for part in parts]
    videos = [data["videos"][index]["href"] for index in data["queries"]["video"]]
    assert [(out / video).resolve() for video in videos] == [Path(row["sample"]["video"]).resolve() for row in rows]
    assert data["clips"] == {}


def test_embedded_clips_have_the_times_of_their_videos(evaluated, tmp_path):
    steps.evaluate(None, None, str(tmp_path), predictions=str(evaluated[0] / "predictions.jsonl"), embed_clips=1)
    data = embedded((tmp_path / "report.html").read_text(), "data")
    assert 1 <= len(data["clips"]) <= len(set(data["candidates"][0]["outcome"]))
    for index, clip in data["clips"].items():
        (tmp_path / "clip.mp4").write_bytes(base64.b64decode(clip))
        found, video = (
            probe(str(path)) for path in (tmp_path / "clip.mp4", tmp_path / data["videos"][int(index)]["href"])
        )
        assert found.duration == pytest.approx(video.duration, abs=0.3)
        assert found.height <= 144


def test_gate_results_are_in_the_report(evaluated):
    page = (evaluated[0] / "report.html").read_text()
    assert "<td>ra_iou.mean&gt;=base</td><td>passed</td>" in page


def start_evaluation(folder, data, *flags, program=()):
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
    assert start_evaluation(folder, validated).wait() == 0, (folder / "log").read_text()
    return (folder / "out" / "predictions.jsonl").read_bytes()


@pytest.mark.long
@pytest.mark.long
def test_killed_evaluation_resumes(validated, tmp_path, uninterrupted):
    process = start_evaluation(tmp_path, validated)
    while len(list(tmp_path.glob("out/.unfinished/*/*.json"))) < 3:
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert start_evaluation(tmp_path, validated).wait() == 0
    assert re.search(r"resuming after [3-9] of 16 batches", (tmp_path / "log").read_text())
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == uninterrupted


@pytest.mark.long
def test_two_processes_share_the_queries(validated, tmp_path, uninterrupted):
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    launcher = [*program, "--rdzv_endpoint", "localhost:0", "-m", "rarft.cli"]
    assert start_evaluation(tmp_path, validated, program=launcher).wait() == 0, (tmp_path / "log").read_text()[-3000:]
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == uninterrupted


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "x"], "one of the arguments --checkpoint --predictions is required"),
        (["--checkpoint", "tiny"], "the data is missing"),
        (["--predictions", "p.jsonl", "--compare", "tiny"], "the data is missing"),
        (["--checkpoint", "tiny", "--data", "x", "--compare", "no/such/folder"], "--compare no/such/folder: no such"),
        (
            ["--checkpoint", "tiny", "--data", "x", "--compare", "a=tiny", "--compare", "a=tiny"],
            "name a is already used",
        ),
        (["--checkpoint", "tiny", "--data", "p", "--backend", "nonsense"], "--backend nonsense: unknown; choose"),
        (
            ["--checkpoint", "tiny", "--data", "x", "--judge-url", "http://x"],
            "--judge-url, --judge-model: only one is given; pass both",
        ),
        (["--checkpoint", "tiny", "--data", "x", "--batch-size", "0"], "--batch-size: must be a positive integer"),
    ],
)
def test_evaluate_rejects_bad_options(main, arguments, message):
    code, _, error = main("evaluate", "--out", "o", *arguments)
    assert code == 2
    assert message in error
