"""The commands of docs/data.md, from files in published formats over generated clips to an evaluated tiny model."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from helpers import published_formats
from helpers.paths import ROOT
from helpers.riq_items import read_lines
from rarft.annotations.schema import read_samples

PAGE = (ROOT / "docs" / "data.md").read_text()
COMMANDS = [
    line
    for block in re.findall(r"^```bash\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    for line in block.replace("\\\n", "").strip().splitlines()
]
# Names of the page by format; the others have refusable queries, too.
FILES = {
    "charades_sta_train.txt": "charades-sta",
    "val_1.json": "activitynet-captions",
    "highlight_val_release.jsonl": "qvhighlights",
    "charades_sta_test2.0.json": "ratsg",
    "charades-timelens.json": "timelens-bench",
    "timelens-100k.jsonl": "timelens",
    "train_2k5.json": "time-r1",
    "tvgbench.json": "tvgbench",
    "chats.jsonl": "ms-swift",
}


def queries(data, name):
    return [
        (Path(one.video).name, one.query, one.segment, one.duration)
        for one in read_samples(str(data))
        if one.task_type == "answerable" or name in published_formats.WITH_REFUSABLE
    ]


@pytest.fixture
def folder(tmp_path, sample_set, validated):
    """The files that the page names, over the clips of the synthetic dataset."""
    (tmp_path / "videos").symlink_to(sample_set / "videos")
    for file, name in FILES.items():
        (tmp_path / file).write_text(published_formats.FORMATS[name](queries(validated, name)))
    answerable = queries(validated, "charades-sta")
    (tmp_path / "Charades_v1_train.csv").write_text(published_formats.charades_durations(answerable))
    held_out = []
    for item in json.loads((sample_set / "eval.json").read_text()):
        held_out.append((item["video"], item["query_text"], item["timestamp"], item["duration"]))
    (tmp_path / "charades_sta_test.txt").write_text(published_formats.charades_sta(held_out))
    return tmp_path


@pytest.mark.long
def test_commands_run(folder, validated, forks):
    environment = {
        **os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    assert len(COMMANDS) > 10
    printed = {}
    for line in COMMANDS:
        program, *arguments = shlex.split(line)
        assert program == "rarft"
        code, printed[line] = forks.run(arguments, folder, environment=environment)
        assert code == 0, f"{line}\n{printed[line][-2000:]}"
    # The example of the page is what the command prints.
    example = PAGE.split("prints what it found:\n\n```\n")[1].split("```")[0]
    assert printed[COMMANDS[0]].endswith(example)
    for run in ("charades", "one-step"):
        metrics = json.loads((folder / "out" / run / "evaluation" / "metrics.json").read_text())
        assert (metrics["samples"], metrics["in_sample"]) == (4, False)
        assert len(read_lines(folder / "out" / run / "validation" / "riq.jsonl")) == 8
    assert len(read_lines(folder / "swift.jsonl")) == 8
    assert {row["task_type"] for row in read_lines(folder / "out" / "complete.jsonl")} == {
        "answerable", "refusable"
    }  # fmt: skip
    (added,) = (folder / "out" / "with-negatives").glob("pipeline/*/negatives/training_data/riq.jsonl")
    assert any("negative" in row["extra"] for row in read_lines(added))


def test_page_lists_all_formats():
    section = PAGE.split("## Formats")[1].split("## Options")[0]
    rows = re.findall(r"^\| `(\w[\w-]*)` \|", section, re.MULTILINE)
    assert set(rows) == set(published_formats.FORMATS)
