"""Model cards, checked against the metadata schema of the Hugging Face Hub as far as it is known offline."""

import re

import pytest
import yaml
from huggingface_hub import ModelCard, ModelCardData
from huggingface_hub.repocard import RepoCard

from rarft.checkpoint.model_card import add_evaluation, write_model_card

SETTINGS = {"model": "Qwen/Qwen2.5-VL-7B-Instruct", "data": "0123abcd", "template": "long text", "seed": 42}
METRICS = [
    ("Refusal F1", "relevance.irrelevant.f1", 0.8125, [0.75, 0.875]),
    ("Refusal score: AUROC", "refusal_score.auroc", 0.9, None),
]


@pytest.fixture
def folder(tmp_path):
    write_model_card(tmp_path, "my run", 120, "riq.jsonl", (2500, 1000), SETTINGS)
    return tmp_path


def test_card_has_valid_metadata(folder):
    card = ModelCard.load(folder / "README.md")
    data = card.data.to_dict()
    assert data["base_model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert (data["library_name"], data["pipeline_tag"]) == ("transformers", "video-text-to-text")
    assert (data["license"], data["license_name"]) == ("other", "license-of-the-base-model")
    assert data.keys() <= vars(ModelCardData(language="en")).keys() | {"license_name", "license_link", "model-index"}
    assert isinstance(data["tags"], list)
    assert all(re.fullmatch(r"[a-z0-9-]+", tag) for tag in data["tags"])
    assert "| data | `riq.jsonl`, 2,500 queries, 1,000 of them refusable |" in card.text
    assert "| hash of the data | `0123abcd` |\n| seed | 42 |\n\nThe prompt" in card.text
    assert "long text" not in card.text
    assert [line for line in card.text.splitlines() if line.startswith("## ")] == [
        "## Training", "## Evaluation", "## Intended use", "## Limits",
    ]  # fmt: skip


def test_local_base_model_is_not_in_metadata(tmp_path):
    """The Hub accepts as a base model only a model that it hosts."""
    write_model_card(tmp_path, "run", 1, "riq.jsonl", (2, 1), SETTINGS | {"model": "/models/qwen"})
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model is None
    assert "| base model | `/models/qwen` |" in card.text


def test_evaluation_is_added_and_replaced(folder):
    for value in (0.5, 0.8125):
        add_evaluation(folder, "held-out queries", 120, [(*METRICS[0][:2], value, METRICS[0][3]), METRICS[1]])
    card = ModelCard.load(folder / "README.md")
    assert card.text.count("| Refusal F1 |") == 1
    assert "| Refusal F1 | 0.812 | 0.750 to 0.875 |" in card.text
    assert "120 held-out queries. Intervals come" in card.text
    assert "## Intended use" in card.text
    assert {result.metric_type: result.metric_value for result in card.data.eval_results} == {
        path: value for _, path, value, _ in METRICS
    }
    metadata = yaml.safe_load(RepoCard.load(folder / "README.md").content.split("---")[1])
    (model,) = metadata["model-index"]
    assert model["name"] == "my run"
    assert {"task", "dataset", "metrics"} <= model["results"][0].keys()


def test_folder_without_card(tmp_path):
    add_evaluation(tmp_path, "held-out queries", 1, METRICS)
    assert list(tmp_path.iterdir()) == []
