"""Synthetic scenes as validated data, and a run on them without videos and without weights."""

import json
from collections import defaultdict

import pytest

from helpers.riq_items import read_lines
from helpers.word_encoder import WordEncoder
from rarft.embeddings.store import ReferenceStore
from rarft.negatives.build import add_negatives
from rarft.negatives.config import NegativeSettings
from rarft.negatives.lexicon import packaged_lexicon
from rarft.storage.location import LocalFolder
from rarft.synthetic.dataset import draw_scene, split_rng

VIDEOS = 60


@pytest.fixture(scope="session")
def scenes():
    """One or two scenes by video."""
    rng = split_rng(5, "train")
    truth = defaultdict(list)
    for index in range(VIDEOS + VIDEOS // 3):
        truth[f"v{index % VIDEOS}.mp4"].append(draw_scene(rng))
    return dict(truth)


@pytest.fixture(scope="session")
def truth(scenes):
    return {video: {(s.colour, s.shape, s.motion) for s in each} for video, each in scenes.items()}


@pytest.fixture
def data(scenes, validate_items, tmp_path):
    """Path of riq.jsonl with one answerable query per scene."""
    items = [
        {
            "video": video, "query_text": scene.description, "timestamp": list(scene.segment), "duration": 20.0,
            "think": f"<timestep>1.0 to 2.0</timestep> {scene.description}.",
            "GRPO": [{"q": scene.description, "a": "", "r": True, "difficulty": "original"}],
        }
        for video, each in scenes.items() for scene in each
    ]  # fmt: skip
    validate_items(json.dumps(items))
    return tmp_path / "out" / "riq.jsonl"


@pytest.fixture
def make(data, tmp_path):
    """Function that makes negatives; it returns the report, all rows, and the new ones."""

    def run(out="negatives", lexicon=None, **settings):
        def embed(texts):
            store = ReferenceStore(WordEncoder())
            store.add(list(texts))
            return store

        folder = tmp_path / out
        # Synthetic queries of three words are more similar than sentences.
        options = NegativeSettings(**{"duplicate": 0.99, **settings})
        written = LocalFolder(folder / "riq.jsonl")
        report = add_negatives(data, str(data), written, lexicon or packaged_lexicon(), options, embed)
        rows = read_lines(folder / "riq.jsonl")
        return report, rows, [row for row in rows if "negative" in row["extra"]]

    return run
