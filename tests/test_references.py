import json

import numpy as np
import pytest

from rarft import steps
from rarft.errors import InputError
from rarft.references.encoder import SentenceEncoder, default_encoder
from rarft.references.store import EMBEDDINGS, INDEX, ReferenceStore
from rarft.riq.schema import read_samples

TEXTS = ["a dog runs", "a cat sits on the mat", "a dog runs", " a  dog runs "]


@pytest.fixture(scope="module")
def encoder():
    return default_encoder()


def test_each_distinct_text_is_encoded_once(validated, tmp_path, encoder):
    number = steps.embed(str(validated), str(tmp_path))
    texts = {text for sample in read_samples(str(validated), "data") for text in sample.reference_queries}
    assert number == len(texts)
    store = ReferenceStore.load(str(tmp_path), encoder)
    store.similarities([("anything", sorted(texts))])
    assert store.misses == 0


def test_similarities_are_those_of_the_encoder(tmp_path, encoder):
    ReferenceStore.build(encoder, TEXTS).save(tmp_path)
    store = ReferenceStore.load(str(tmp_path), encoder)
    assert len(store) == 2
    vectors = encoder.encode(["a puppy is running", "a dog runs", "a cat sits on the mat"])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    runs, sits = (vectors[0] @ vectors[1:].T).tolist()
    found, nothing = store.similarities([("a puppy is running", TEXTS), ("x", [])])
    assert found == pytest.approx([runs, sits, runs, runs], abs=1e-5)
    assert nothing == []


def test_a_miss_is_encoded_and_counted(encoder):
    store = ReferenceStore.build(encoder, ["a dog runs"])
    (first,), (second, _) = store.similarities([("a bird", ["a bird"]), ("a bird", ["a bird", "a dog runs"])])
    assert first == second == 1.0
    assert store.misses == 1


def test_a_damaged_store_is_an_error(tmp_path, encoder):
    ReferenceStore.build(encoder, TEXTS).save(tmp_path)
    whole = (tmp_path / EMBEDDINGS).read_bytes()
    (tmp_path / EMBEDDINGS).write_bytes(whole[:-4] + b"\x00\x00\x00\x00")
    with pytest.raises(InputError, match="do not belong together"):
        ReferenceStore.load(str(tmp_path), encoder)
    (tmp_path / EMBEDDINGS).write_bytes(whole[:50])
    with pytest.raises(InputError, match="cannot be read"):
        ReferenceStore.load(str(tmp_path), encoder)
    (tmp_path / INDEX).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        ReferenceStore.load(str(tmp_path), encoder)


def test_a_store_of_another_encoder_is_refused(tmp_path, encoder):
    ReferenceStore.build(encoder, TEXTS).save(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps({**index, "fingerprint": "0" * 64}))
    with pytest.raises(InputError, match="not by the files of"):
        ReferenceStore.load(str(tmp_path), encoder)


def test_an_encoder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be loaded"):
        SentenceEncoder(str(tmp_path))
