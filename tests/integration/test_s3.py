"""Data and embeddings in an S3 store, served by moto on loopback."""

import boto3
import pytest

from helpers.s3_servers import buckets
from rarft import steps
from rarft.annotations.schema import read_samples
from rarft.embeddings.encoder import default_encoder
from rarft.embeddings.store import ReferenceStore, build_store
from rarft.errors import InputError
from rarft.storage.location import S3Folder
from rarft.storage.s3 import UploadCancelledError, upload


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with buckets("moto", tmp_path_factory.mktemp("store"), "riq"):
        yield


@pytest.fixture
def bucket(store):
    return boto3.client("s3")


def test_validate_from_store(bucket, sample_set, tmp_path):
    bucket.upload_file(str(sample_set / "train.json"), "riq", "sets/train.json")
    bucket.upload_file(str(sample_set / "eval.json"), "riq", "sets/eval.json")
    report = steps.validate(
        "s3://riq/sets/train.json",
        str(tmp_path / "out"),
        probe="none",
        exclude_videos_from="s3://riq/sets/eval.json",
    )
    assert report["counts"]["accepted"] == 16
    assert report["annotations"] == "train.json"


@pytest.mark.parametrize("uri", ["s3://riq/none.json", "s3://no-such-bucket/train.json", "s3://riq"])
def test_missing_object(bucket, tmp_path, uri):
    with pytest.raises(InputError, match="cannot be read") as raised:
        steps.validate(uri, str(tmp_path / "out"), probe="none")
    assert uri in str(raised.value)
    assert not (tmp_path / "out").exists()


def keys(client, prefix):
    return [entry["Key"] for entry in client.list_objects_v2(Bucket="riq", Prefix=prefix).get("Contents", [])]


def test_embed_to_store_once(bucket, validated):
    bucket.upload_file(str(validated / "riq.jsonl"), "riq", "valid/riq.jsonl")
    assert steps.embed("s3://riq/valid", "s3://riq/embeddings") > 0
    assert keys(bucket, "embeddings") == ["embeddings/embeddings.safetensors", "embeddings/index.json"]
    assert steps.embed("s3://riq/valid/riq.jsonl", "s3://riq/embeddings") == 0
    store = ReferenceStore.load(S3Folder("s3://riq/embeddings"), default_encoder())
    references = {text for sample in read_samples(str(validated)) for text in sample.reference_queries}
    store.similarities([("a ring", sorted(references))])
    assert store.misses == 0


def test_interrupted_embed_to_store(bucket, crashing_encoder):
    encoder, texts = crashing_encoder, [f"sentence number {number}" for number in range(6)]
    with pytest.raises(KeyboardInterrupt):
        build_store(texts, S3Folder("s3://riq/killed"), encoder)
    with pytest.raises(InputError, match=r"^s3://riq/killed/index.json: cannot be read \(no such object"):
        ReferenceStore.load(S3Folder("s3://riq/killed"), encoder)
    store, number = build_store(texts, S3Folder("s3://riq/killed"), encoder)
    assert (number, len(store)) == (2, 6)
    assert keys(bucket, "killed") == ["killed/embeddings.safetensors", "killed/index.json"]


def test_missing_bucket_fails_early(bucket, validated):
    with pytest.raises(InputError, match="--out s3://no-such-bucket/x: cannot be written"):
        steps.embed(str(validated), "s3://no-such-bucket/x")


def test_cancelled_upload_leaves_no_object(bucket, tmp_path):
    (tmp_path / "large").write_bytes(b"x" * 2**20)
    calls = []

    def should_stop():
        calls.append(1)
        return True

    with pytest.raises(UploadCancelledError):
        upload([("s3://riq/cancelled/large", tmp_path / "large")], should_stop=should_stop)
    assert calls
    assert keys(bucket, "cancelled") == []
    upload([("s3://riq/cancelled/large", tmp_path / "large")])
    assert keys(bucket, "cancelled") == ["cancelled/large"]
