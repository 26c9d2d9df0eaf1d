"""The recipes of CONTRIBUTING.md, as they stand there, on a copy of the package."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import pytest

from helpers.paths import ROOT
from helpers.riq_items import read_lines

BLOCKS = re.findall(r"^```(python|diff|bash) ?(\S*)\n(.*?)^```", (ROOT / "CONTRIBUTING.md").read_text(), re.M | re.S)


def changed(text, diff):
    """The text with the lines that begin with + put between those around them."""
    lines = diff.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if not line.startswith("+"))
    assert text.count(before) == 1, f"the lines around a change are not there, or not once: {before}"
    return text.replace(before, "".join(line[1:] for line in lines))


@pytest.fixture(scope="module")
def tree(validated, tmp_path_factory):
    """A copy of the package with every recipe's change, data beside it, and every recipe's command run."""
    folder = tmp_path_factory.mktemp("contributing")
    shutil.copytree(ROOT / "rarft", folder / "rarft", ignore=shutil.ignore_patterns("__pycache__"))
    rows = read_lines(validated / "riq.jsonl")
    shutil.copy(validated / "riq.jsonl", folder)
    answers = {"answerable": "1.00 to 2.00", "refusable": "No moment matches: it is red.</answer><correction>a dog"}
    with (folder / "predictions.jsonl").open("w") as file:
        for row in rows:
            tag = "correction" if row["task_type"] == "refusable" else "answer"
            said = f"<think>-</think><answer>{answers[row['task_type']]}</{tag}>"
            print(json.dumps({"id": row["id"], "completion": said}), file=file)
    queries = [
        {"q": "A DOG RUNS", "a": "<answer>1.00 to 2.00</answer>", "r": True},
        {"q": "a cat runs", "a": "<answer>No cat is there.</answer>", "r": False},
    ]
    item = {"video": "a.mp4", "query_text": "A DOG RUNS", "timestamp": [1, 2], "duration": 9.0, "GRPO": queries}
    (folder / "annotations.json").write_text(json.dumps([item]))
    commands = []
    for language, name, text in BLOCKS:
        if language == "diff":
            (folder / name).write_text(changed((folder / name).read_text(), text))
        elif language == "python":
            (folder / name).write_text(text)
        else:
            commands.append(shlex.split(text)[1:])
    # One process for all: imports are most of the time.
    program = f"from rarft.cli.main import main\nfor command in {commands!r}: main(command)"
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def test_a_reward_of_ones_own_scores(tree):
    assert re.search(r"^my_rewards\.py:says_why +1\.000$", tree[1], re.M)


def test_a_check_finds_what_it_looks_for(tree):
    report = json.loads((tree[0] / "out" / "validated" / "report.json").read_text())
    assert report["codes"] == {"RIQ311": 1}


def test_a_metric_has_its_interval_and_its_gate(tree):
    metrics = json.loads((tree[0] / "out" / "evaluation" / "metrics.json").read_text())
    assert metrics["correction_rate"] == 0.5
    assert metrics["intervals"]["correction_rate"] is not None
    assert [gate["passed"] for gate in metrics["gates"]] == [True]


def test_a_backend_completes(tree):
    metrics = json.loads((tree[0] / "out" / "refuser" / "metrics.json").read_text())
    assert metrics["relevance"]["confusion"] == {"tp": 0, "fp": 0, "fn": 8, "tn": 8}
