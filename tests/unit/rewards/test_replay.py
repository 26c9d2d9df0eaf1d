"""`rarft score`."""

import csv
import gzip
import json

import pytest

from rarft.annotations.schema import read_samples
from rarft.completion import format_segment, render_completion


@pytest.fixture
def predictions(validated, tmp_path):
    """A perfect completion for every sample except the first, whose times are in another form."""
    rows = []
    for index, sample in enumerate(read_samples(str(validated))):
        if sample.segment is not None:
            text = render_completion("t", format_segment(sample.segment))
        else:
            text = render_completion("t", "no such moment", sample.reference_queries[0])
        rows.append({"id": sample.id, "completion": render_completion("t", "1s - 2s") if index == 0 else text})
    path = tmp_path / "predictions.jsonl.gz"
    path.write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode("utf-16")))
    return path


def test_scores_of_each_completion(main, predictions, validated, tmp_path):
    code, output, error = main("score", predictions, "--data", validated, "--out", "scores")
    assert code == 0, error
    with (tmp_path / "scores" / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    assert (rows[0]["answer"], float(rows[0]["refuse_iou/unreadable"])) == ("unreadable", 1.0)
    assert float(rows[0]["reward"]) == 1.0  # for its format
    assert {row["task_type"]: row["answer"] for row in rows[1:]} == {"answerable": "segment", "refusable": "refusal"}
    for row in rows[1:]:
        # A perfect correction has similarity 1 with its reference, so a bonus of 0.5.
        assert float(row["reward"]) == pytest.approx(3.5 if row["task_type"] == "refusable" else 3.0, abs=1e-4)
        if row["task_type"] == "refusable":
            assert float(row["explain_correction/correction_bonus"]) == pytest.approx(0.5, abs=1e-4)
        else:
            assert float(row["refuse_iou/iou"]) == 1.0
    assert "Lowest rewards first" in (tmp_path / "scores" / "report.html").read_text()
    assert "explain_correction" in output


def test_custom_rewards(main, predictions, validated, tmp_path):
    (tmp_path / "own.py").write_text(
        "def easy(completions, task_type, **columns):\n"
        "    return [1.0 if kind == 'refusable' else None for kind in task_type]\n"
        "def never(completions, **columns):\n"
        "    return [None] * len(completions)\n"
    )
    rewards = [f"{tmp_path}/own.py:easy", f"{tmp_path}/own.py:never"]
    code, output, error = main(
        "score", predictions, "--data", validated, "--out", "scores", "--reward-funcs", *rewards
    )
    assert code == 0, error
    means = {line.split()[0].rpartition(":")[2]: line.split()[1] for line in output.splitlines() if ":" in line}
    assert (means["easy"], means["never"]) == ("1.000", "-")
    page = (tmp_path / "scores" / "report.html").read_text()
    answerable, refusable = (f'<td class="number">{value}</td>' for value in ("–", "1.000"))
    assert f">{rewards[0]}</td>{answerable}{refusable}" in page
