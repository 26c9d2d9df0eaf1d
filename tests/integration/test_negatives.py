"""From answerable annotations in another format to a tiny model that refuses."""

import json

import pytest

from helpers import published_formats
from helpers.riq_items import read_lines
from helpers.scenes import facts
from rarft import steps


@pytest.mark.long
def test_converted_data_trains_refusal(main, tmp_path):
    """No refusal is in the annotations; after training on added queries, the model refuses held-out ones."""
    steps.make_dataset(str(tmp_path), {"train": 64, "eval": 16}, seed=4)
    items = json.loads((tmp_path / "train.json").read_text())
    rows = [(each["video"], each["query_text"], each["timestamp"], each["duration"]) for each in items]
    (tmp_path / "train.txt").write_text(published_formats.charades_sta(rows))
    for command in (
        "convert train.txt --from charades-sta --out train.jsonl",
        "validate train.jsonl --video-root videos --out valid",
        "negatives valid --out complete.jsonl --seed 1",
        "embed complete.jsonl --out embeddings",
        "validate eval.json --out held-out",
        "train --preset tiny --train_data_path complete.jsonl --embeddings embeddings --num_train_epochs 2 --out .",
        "evaluate --checkpoint checkpoints/rarft/checkpoint-final --compare tiny --data held-out --out evaluation",
    ):
        code, output, errors = main(*command.split())
        assert code == 0, f"{command}\n{output}\n{errors}"
    assert {row["task_type"] for row in read_lines(tmp_path / "valid" / "riq.jsonl")} == {"answerable"}
    truth = {each["video"].rpartition("/")[2]: facts(each["query_text"]) for each in items}
    added = [row for row in read_lines(tmp_path / "complete.jsonl") if row["task_type"] == "refusable"]
    assert len(added) > 40
    assert all(facts(row["query"].rstrip(".")) != truth[row["video"].rpartition("/")[2]] for row in added)
    metrics = json.loads((tmp_path / "evaluation" / "metrics.json").read_text())
    assert metrics["base"]["relevance"]["irrelevant"]["recall"] == 0
    assert metrics["relevance"]["irrelevant"]["recall"] >= 0.5
    assert metrics["relevance"]["relevant"]["recall"] >= 0.5
