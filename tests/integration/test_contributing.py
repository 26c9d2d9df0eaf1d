"""The recipes of CONTRIBUTING.md, run on a copy of the package."""

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


def apply_diff(text, diff):
    """Return the text with the lines that begin with + inserted between those around them."""
    lines = diff.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if not line.startswith("+"))
    assert text.count(before) == 1, f"the context of a change must occur once: {before}"
    return text.replace(before, "".join(line[1:] for line in lines))


@pytest.fixture(scope="module")
def tree(validated, tmp_path_factory):
    """Copy of the package with the changes of all recipes, in which their commands have run; and their output."""
    folder = tmp_path_factory.mktemp("contributing")
    shutil.copytree(ROOT / "rarft", folder / "rarft", ignore=shutil.ignore_patterns("__pycache__"))
    rows = read_lines(validated / "riq.jsonl")
    shutil.copy(validated / "riq.jsonl", folder)
    answers = {"answerable": "1.00 to 2.00", "refusable": "No moment matches: it is red.</answer><correction>a dog"}
    with (folder / "predictions.jsonl").open("w") as file:
        for row in rows:
            tag = "correction" if row["task_type"] == "refusable" else "answer"
            completion = f"<think>-</think><answer>{answers[row['task_type']]}</{tag}>"
            print(json.dumps({"id": row["id"], "completion": completion}), file=file)
    queries = [
        {"q": "A DOG RUNS", "a": "<answer>1.00 to 2.00</answer>", "r": True},
        {"q": "a cat runs", "a": "<answer>There is a dog, not a cat.</answer>", "r": False},
    ]
    item = {"video": "a.mp4", "query_text": "A DOG RUNS", "timestamp": [1, 2], "duration": 9.0, "GRPO": queries}
    (folder / "annotations.json").write_text(json.dumps([item]))
    (folder / "clips.txt").write_text("a.mp4;a dog runs;1.5;4\na.mp4;a cat runs;;\n")
    commands = []
    for language, name, text in BLOCKS:
        if language == "diff":
            (folder / name).write_text(apply_diff((folder / name).read_text(), text))
        elif language == "python":
            (folder / name).write_text(text)
        else:
            commands.append(shlex.split(text)[1:])
    # One process, because imports take most of the time.
    program = f"from rarft.cli.main import main\nfor command in {commands!r}: main(command)"
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done.stdout


def test_recipe_reward(tree):
    assert re.search(r"^my_rewards\.py:gives_reason +1\.000$", tree[1], re.M)


def test_recipe_format(tree):
    first, second = read_lines(tree[0] / "clips.jsonl")
    assert (first["timestamp"], first["GRPO"][0]["r"]) == (["1.5", "4"], True)
    assert (second["timestamp"], second["GRPO"][0]["r"]) == ([], False)


def test_recipe_check(tree):
    report = json.loads((tree[0] / "out" / "validated" / "report.json").read_text())
    assert report["codes"] == {"RIQ311": 1}


def test_recipe_metric(tree):
    metrics = json.loads((tree[0] / "out" / "evaluation" / "metrics.json").read_text())
    assert metrics["correction_rate"] == 0.5
    assert metrics["intervals"]["correction_rate"] is not None
    assert [gate["passed"] for gate in metrics["gates"]] == [True]


def test_recipe_backend(tree):
    metrics = json.loads((tree[0] / "out" / "refusing" / "metrics.json").read_text())
    assert metrics["relevance"]["confusion"] == {"tp": 0, "fp": 0, "fn": 8, "tn": 8}
