"""Embedding stores: each text is encoded once, and a store is never half written."""

import contextlib
import json
import random
import subprocess
import sys

import numpy as np
import pytest

from rarft import steps
from rarft.annotations.schema import read_samples
from rarft.embeddings.encoder import SentenceEncoder, default_encoder
from rarft.embeddings.store import EMBEDDINGS, INDEX, ReferenceStore, build_store
from rarft.errors import InputError
from rarft.storage.location import LocalFolder

TEXTS = ["a dog runs", "a cat sits on the mat", "a dog runs", " a  dog runs "]


@pytest.fixture(scope="module")
def encoder():
    return default_encoder()


def test_embed_encodes_once(validated, tmp_path, encoder):
    number = steps.embed(str(validated), str(tmp_path))
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert steps.embed(str(validated), str(tmp_path)) == 0
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    texts = {text for sample in read_samples(str(validated)) for text in sample.reference_queries}
    assert number == len(texts)
    store = ReferenceStore.load(LocalFolder(tmp_path), encoder)
    store.similarities([("anything", sorted(texts))])
    assert store.misses == 0


def test_similarities_match_encoder(tmp_path, encoder):
    build_store(TEXTS, LocalFolder(tmp_path), encoder)
    store = ReferenceStore.load(LocalFolder(tmp_path), encoder)
    assert len(store) == 2
    vectors = encoder.encode(["a puppy is running", "a dog runs", "a cat sits on the mat"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    runs, sits = (vectors[0] @ vectors[1:].T).tolist()
    similarities, empty = store.similarities([("a puppy is running", TEXTS), ("x", [])])
    assert similarities == pytest.approx([runs, sits, runs, runs], abs=1e-5)
    assert empty == []


def test_miss_is_encoded_and_counted(encoder):
    store = ReferenceStore(encoder)
    store.add(["a dog runs"])
    (first,), (second, _) = store.similarities([("a bird", ["a bird"]), ("a bird", ["a bird", "a dog runs"])])
    assert first == second == 1.0
    assert store.misses == 1


def test_nan_embedding(encoder, monkeypatch):
    encode = encoder._model.encode
    monkeypatch.setattr(encoder._model, "encode", lambda texts, **options: encode(texts, **options) * [[1], [np.nan]])
    with pytest.raises(InputError, match=r"^all-MiniLM-L6-v2: the embedding of 'b' is not finite"):
        encoder.encode(["a", "b"])


def test_damaged_store(tmp_path, encoder):
    build_store(TEXTS, LocalFolder(tmp_path), encoder)
    content = (tmp_path / EMBEDDINGS).read_bytes()
    (tmp_path / EMBEDDINGS).write_bytes(content[:-4] + b"\x00\x00\x00\x00")
    with pytest.raises(InputError, match=r"index\.json does not match"):
        ReferenceStore.load(LocalFolder(tmp_path), encoder)
    (tmp_path / EMBEDDINGS).write_bytes(content[:50])
    with pytest.raises(InputError, match="cannot be read"):
        ReferenceStore.load(LocalFolder(tmp_path), encoder)
    (tmp_path / INDEX).unlink()
    with pytest.raises(InputError, match=r"index\.json: no such file"):
        ReferenceStore.load(LocalFolder(tmp_path), encoder)


def test_store_of_another_encoder(tmp_path, encoder):
    build_store(TEXTS, LocalFolder(tmp_path), encoder)
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps({**index, "fingerprint": "0" * 64}))
    with pytest.raises(InputError, match="whose files differ from those of"):
        ReferenceStore.load(LocalFolder(tmp_path), encoder)


def test_invalid_encoder(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        SentenceEncoder(str(tmp_path))


def test_build_store_encodes_only_new_texts(tmp_path, encoder, monkeypatch):
    build_store(TEXTS, LocalFolder(tmp_path), encoder)
    encoded = []
    monkeypatch.setattr(
        encoder, "encode", lambda texts, original=encoder.encode: encoded.extend(texts) or original(texts)
    )
    store, number = build_store([*TEXTS, "a bird sings"], LocalFolder(tmp_path), encoder)
    assert (encoded, number, len(store)) == (["a bird sings"], 1, 3)


def test_interrupted_run_is_resumed(tmp_path, crashing_encoder):
    encoder, texts = crashing_encoder, [f"sentence number {number}" for number in range(6)]
    with pytest.raises(KeyboardInterrupt):
        build_store(texts, LocalFolder(tmp_path), encoder)
    with pytest.raises(InputError, match="no such file"):
        ReferenceStore.load(LocalFolder(tmp_path), encoder)
    store, number = build_store(texts, LocalFolder(tmp_path), encoder)
    assert (number, len(store)) == (2, 6)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([EMBEDDINGS, INDEX])


@pytest.mark.long
def test_killed_runs_leave_valid_stores(tmp_path, encoder, validated):
    """Kill `rarft embed` at random moments; it leaves a complete store or none, and a rerun completes it."""
    rng = random.Random(0)
    command = [sys.executable, "-m", "rarft.cli", "embed", str(validated), "--out", str(tmp_path)]
    for _ in range(3):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=rng.uniform(5, 9))
        process.kill()
        process.communicate()
        if (tmp_path / INDEX).exists():
            ReferenceStore.load(LocalFolder(tmp_path), encoder)
    steps.embed(str(validated), str(tmp_path))
    assert steps.embed(str(validated), str(tmp_path)) == 0
    ReferenceStore.load(LocalFolder(tmp_path), encoder)
