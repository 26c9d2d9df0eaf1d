"""`rarft evaluate` with a video that cannot be read: its queries count as wrong, and nothing else changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from helpers.pages import embedded
from helpers.predictions import REFUSAL, prediction
from helpers.riq_items import read_lines
from rarft import steps
from rarft.annotations.schema import read_samples
from rarft.evaluation import evaluate as evaluation
from rarft.evaluation.report import console_table

OPTIONS = {"compare": ["tiny"], "batch_size": 3}


@pytest.fixture(scope="module")
def skipped(data_with_broken_video, tmp_path_factory):
    """An evaluation with a broken video: its folder and metrics, and the numbers of the queries of that video."""
    data, broken = data_with_broken_video
    out = tmp_path_factory.mktemp("skipped")
    metrics = steps.evaluate(
        "tiny-truthful", str(data), str(out), gates=["skipped<=3", "ra_iou.mean>=base"], **OPTIONS
    )
    return out, metrics, [index for index, row in enumerate(read_samples(str(data))) if row.video == broken]


@pytest.fixture(scope="module")
def unbroken(validated, tmp_path_factory):
    """The same evaluation without a broken video."""
    out = tmp_path_factory.mktemp("unbroken")
    return out, steps.evaluate("tiny-truthful", str(validated), str(out), **OPTIONS)


def test_skipped_queries_count_as_wrong(skipped, unbroken, tmp_path):
    """The metrics are those of empty completions; the other completions are those without the broken video."""
    out, metrics, queries = skipped
    assert (metrics["samples"], metrics["skipped"], metrics["base"]["skipped"]) == (16, len(queries), len(queries))
    for name in ("predictions.jsonl", "base-predictions.jsonl"):
        rows, expected = read_lines(out / name), read_lines(unbroken[0] / name)
        assert [index for index, row in enumerate(rows) if row["skipped"] is not None] == queries
        assert all("broken.mp4" in rows[index]["skipped"] and not rows[index]["completion"] for index in queries)
        others = [index for index in range(16) if index not in queries]
        assert [rows[index]["completion"] for index in others] == [expected[index]["completion"] for index in others]
        (tmp_path / name).write_text("".join(json.dumps({**row, "skipped": None}) + "\n" for row in rows))
    empty = steps.evaluate(
        None, None, str(tmp_path / "out"), predictions=str(tmp_path / "predictions.jsonl"),
        compare=[str(tmp_path / "base-predictions.jsonl")],
    )  # fmt: skip
    assert empty["skipped"] == 0
    for name in ("relevance", "ra_iou", "grounding", "refusal_similarity", "correction_similarity", "format_rate"):
        assert metrics[name] == empty[name]
        assert metrics["base"][name] == empty["base"][name]
    assert metrics["rewards"]["total"] == pytest.approx(empty["rewards"]["total"])
    relevant = [row["sample"]["task_type"] == "answerable" for row in read_lines(out / "predictions.jsonl")]
    confusion = metrics["relevance"]["confusion"]
    assert confusion["fn"] >= sum(relevant[index] for index in queries) > 0
    assert confusion["fp"] >= sum(not relevant[index] for index in queries) > 0


def test_comparison_leaves_out_skipped_queries(skipped, unbroken, data_with_broken_video, tmp_path):
    """A query that either candidate skipped is left out, also of finished predictions."""
    out, metrics, queries = skipped
    files = []
    for name, left_out in (("predictions.jsonl", []), ("base-predictions.jsonl", []), ("predictions.jsonl", queries)):
        rows = read_lines(unbroken[0] / name)
        files.append(tmp_path / f"{len(files)}.jsonl")
        kept = [row for index, row in enumerate(rows) if index not in left_out]
        files[-1].write_text("".join(json.dumps(row) + "\n" for row in kept))
    base = [row for index, row in enumerate(read_lines(files[1])) if index not in queries]
    (tmp_path / "base.jsonl").write_text("".join(json.dumps(row) + "\n" for row in base))

    def compare(predictions, other):
        data = str(data_with_broken_video[0])
        return steps.evaluate(None, data, str(tmp_path / "out"), predictions=str(predictions), compare=[str(other)])

    expected = compare(files[2], tmp_path / "base.jsonl")
    assert metrics["comparison"] == expected["comparison"]
    one_sided = compare(files[0], out / "base-predictions.jsonl")
    assert (one_sided["skipped"], one_sided["base"]["skipped"]) == (0, len(queries))
    assert one_sided["comparison"] == expected["comparison"]


def test_skipped_queries_are_reported(skipped, caplog):
    out, metrics, queries = skipped
    lines = console_table(metrics).splitlines()
    assert lines[0].startswith(f"evaluated, 16 queries, {len(queries)} skipped")
    assert lines[-1].split() == ["Skipped", "queries,", "counted", "as", "wrong", *[str(len(queries))] * 2]
    page = (out / "report.html").read_text()
    assert "Skipped queries, counted as wrong" in page
    reasons = embedded(page, "data")["candidates"][0]["skipped"]
    assert sum(reason is not None for reason in reasons) == len(queries)
    assert json.loads((out / "metrics.json").read_text()) == metrics
    assert [gate["passed"] for gate in metrics["gates"]] == [len(queries) <= 3, True]


def test_too_many_skipped_videos(main, data_with_broken_video):
    data, broken = data_with_broken_video
    code, _, error = main(
        "evaluate", "--checkpoint", "tiny", "--data", data, "--out", "out", "--max-skipped-videos", "0"
    )
    assert code == 1
    (line,) = [line for line in error.splitlines() if "--max-skipped-videos" in line]
    expected = f"unreadable videos: 1, more than --max-skipped-videos 0: {broken}; repair them, or raise the limit"
    assert line == f"rarft evaluate: {expected}"


def test_resume_retries_a_repaired_video(data_with_broken_video, unbroken, tmp_path, monkeypatch, caplog):
    """A skipped query is not tried again, unless its file changes; then only its batches are."""
    data, broken = data_with_broken_video
    video = tmp_path / "video.mp4"
    video.write_bytes(Path(broken).read_bytes())
    rows = read_lines(data / "riq.jsonl")
    good = read_lines(unbroken[0] / "predictions.jsonl")[0]["sample"]["video"]
    for row in rows:
        row["video"] = str(video) if row["video"] == broken else row["video"]
    (tmp_path / "riq.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    predicted = []
    original = evaluation.Predictor.predict

    def predict(self, samples, **options):
        predicted.extend(sample.video for sample in samples)
        return original(self, samples, **options)

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation.Predictor, "predict", predict)

    def evaluate():
        predicted.clear()
        return steps.evaluate("tiny-truthful", str(tmp_path), str(tmp_path / "out"), **OPTIONS)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "score_predictions", stop)
        with pytest.raises(KeyboardInterrupt):
            evaluate()
        assert len(predicted) == 32
        with pytest.raises(KeyboardInterrupt):
            evaluate()
        assert predicted == []
    video.write_bytes(Path(good).read_bytes())
    assert evaluate()["skipped"] == 0
    assert str(video) in predicted
    assert len(predicted) <= 2 * 2 * OPTIONS["batch_size"]
    assert caplog.text.count("video skipped: ") == 1


def test_versions_of_videos(tmp_path, monkeypatch):
    """A skipped object is looked up, so that a replaced one is read again; one that could be read is not."""
    monkeypatch.setattr(evaluation, "object_version", lambda uri: f"version of {uri}")
    assert evaluation._video_version("s3://b/a.mp4", "unreadable") == "version of s3://b/a.mp4"
    assert evaluation._video_version("s3://b/a.mp4", None) is None
    video = tmp_path / "a.mp4"
    assert evaluation._video_version(str(video), "unreadable") is None
    video.write_bytes(b"1")
    first = evaluation._video_version(str(video), None)
    video.write_bytes(b"12")
    assert len({None, first, evaluation._video_version(str(video), None)}) == 3


def test_skipped_queries_are_not_judged():
    """A skipped refusal names no category, so it counts as wrong."""

    class Judge:
        def judge(self, rows):
            assert all(row.skipped is None for row in rows)
            return [msgspec.structs.replace(row, consistency=3) for row in rows]

    rows = [
        prediction("answerable", "", "original", skipped="unreadable"),
        prediction("refusable", REFUSAL, "hard", "Object/ObjectExistence"),
        prediction("refusable", "", "hard", "Object/ObjectExistence", skipped="unreadable"),
    ]
    judged = evaluation._judge(Judge(), rows)
    assert [row.consistency for row in judged] == [None, 3, None]
    assert [row.categories for row in judged] == [None, None, []]
    assert [row.skipped for row in judged] == [row.skipped for row in rows]


@pytest.mark.long
def test_two_processes_skip_alike(data_with_broken_video, skipped, tmp_path):
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--rdzv_backend", "c10d"]
    command = [*program, "--rdzv_endpoint", "localhost:0", "-m", "rarft.cli", "evaluate", "--batch-size", "3"]
    options = ["--checkpoint", "tiny-truthful", "--compare", "tiny", "--data", str(data_with_broken_video[0])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for limit, code in (("0", 1), ("1", 0)):
        run = subprocess.run(
            [*command, *options, "--out", "out", "--max-skipped-videos", limit],
            cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert run.returncode == code, run.stderr[-3000:]
        assert ("unreadable videos: 1, more than --max-skipped-videos 0" in run.stderr) == bool(code)
    assert (tmp_path / "out" / "predictions.jsonl").read_bytes() == (skipped[0] / "predictions.jsonl").read_bytes()
