import csv
import json

import pytest

from rarft.response import format_segment, render
from rarft.riq.schema import read_samples


@pytest.fixture
def predictions(validated, tmp_path):
    """A perfect completion for every sample, but the first, which has no tags."""
    rows = []
    for index, sample in enumerate(read_samples(str(validated), "data")):
        if sample.segment is not None:
            text = render("t", format_segment(sample.segment))
        else:
            text = render("t", "no such moment", sample.reference_queries[0])
        rows.append({"id": sample.id, "completion": "no tags" if index == 0 else text})
    path = tmp_path / "predictions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_every_term_of_every_completion(main, predictions, validated, tmp_path):
    code, output, error = main("score", predictions, "--data", validated, "--out", "scores")
    assert code == 0, error
    with (tmp_path / "scores" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert float(rows[0]["reward"]) == 0.0
    for row in rows[1:]:
        # A perfect correction has similarity 1 with its reference, so a bonus of 0.5.
        assert float(row["reward"]) == pytest.approx(3.5 if row["task_type"] == "refusable" else 3.0, abs=1e-4)
        if row["task_type"] == "refusable":
            assert float(row["explain_correction/correction_bonus"]) == pytest.approx(0.5, abs=1e-4)
        else:
            assert float(row["refuse_iou/iou"]) == 1.0
    assert "Lowest rewards first" in (tmp_path / "scores" / "report.html").read_text()
    assert "explain_correction" in output


def test_weights_and_rewards_of_ones_own(main, predictions, validated, tmp_path):
    (tmp_path / "own.py").write_text("def two(completions, **_): return [2.0 for _ in completions]")
    flags = ["--reward_funcs", "format", "own.py:two", "--reward_weights", "1", "0.25"]
    code, output, error = main("score", predictions, "--data", validated, "--out", "scores", *flags)
    assert code == 0, error
    means = dict(line.split() for line in output.splitlines() if not line.startswith("report"))
    assert {name: float(value) for name, value in means.items()} == pytest.approx(
        {"reward": 15 / 16 + 0.5, "format": 15 / 16, "own.py:two": 2.0}, abs=1e-3
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "holds no completion"),
        ("{", "line 1: is no"),
        ('{"id": "nope", "completion": "x"}', "id nope is not in the data"),
        ('{"completion": "x"}', "line 1: is no"),
    ],
)
def test_predictions_that_do_not_fit_are_told(main, validated, tmp_path, content, message):
    (tmp_path / "predictions.jsonl").write_text(content)
    code, _, error = main("score", "predictions.jsonl", "--data", validated, "--out", "scores")
    assert code == 2
    assert message in error.splitlines()[-1]
