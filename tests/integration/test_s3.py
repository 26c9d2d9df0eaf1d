"""Data and embeddings in an object store: a real S3 server on loopback."""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import boto3
import pytest

from rarft import steps
from rarft.annotations.schema import read_samples
from rarft.embeddings.build import build_store
from rarft.embeddings.encoder import default_encoder
from rarft.embeddings.store import ReferenceStore
from rarft.errors import InputError
from rarft.storage.location import S3Folder


@pytest.fixture(scope="module")
def s3_server():
    """moto's server in a process of its own; its URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        url = f"http://127.0.0.1:{port}"
        for _ in range(200):
            try:
                urllib.request.urlopen(url, timeout=1)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        yield url
        server.terminate()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="riq")
    return client


def test_annotations_are_read_from_the_store(bucket, sample_set, tmp_path):
    bucket.upload_file(str(sample_set / "train.json"), "riq", "sets/train.json")
    bucket.upload_file(str(sample_set / "eval.json"), "riq", "sets/eval.json")
    report = steps.validate(
        "s3://riq/sets/train.json",
        str(tmp_path / "out"),
        probe_videos=False,
        exclude_videos_from="s3://riq/sets/eval.json",
    )
    assert report["counts"]["accepted"] == 16
    assert report["annotations"] == "train.json"


@pytest.mark.parametrize("uri", ["s3://riq/none.json", "s3://no-such-bucket/train.json", "s3://riq"])
def test_what_is_not_in_the_store_is_told(bucket, tmp_path, uri):
    with pytest.raises(InputError, match="cannot be read") as raised:
        steps.validate(uri, str(tmp_path / "out"), probe_videos=False)
    assert uri in str(raised.value)
    assert not (tmp_path / "out").exists()


def keys(client, prefix):
    return [entry["Key"] for entry in client.list_objects_v2(Bucket="riq", Prefix=prefix).get("Contents", [])]


def test_references_are_embedded_in_the_store_once(bucket, validated):
    bucket.upload_file(str(validated / "riq.jsonl"), "riq", "valid/riq.jsonl")
    assert steps.embed("s3://riq/valid", "s3://riq/embeddings") > 0
    assert keys(bucket, "embeddings") == ["embeddings/embeddings.safetensors", "embeddings/index.json"]
    assert steps.embed("s3://riq/valid/riq.jsonl", "s3://riq/embeddings") == 0
    store = ReferenceStore.load(S3Folder("s3://riq/embeddings"), default_encoder())
    references = {text for sample in read_samples(str(validated)) for text in sample.reference_queries}
    store.similarities([("a ring", sorted(references))])
    assert store.misses == 0


def test_what_a_killed_embedding_had_is_kept_in_the_store(bucket, crashing_encoder):
    encoder, texts = crashing_encoder, [f"sentence number {number}" for number in range(6)]
    with pytest.raises(KeyboardInterrupt):
        build_store(texts, S3Folder("s3://riq/killed"), encoder)
    with pytest.raises(InputError, match=r"^s3://riq/killed/index.json: cannot be read \(no such object"):
        ReferenceStore.load(S3Folder("s3://riq/killed"), encoder)
    store, number = build_store(texts, S3Folder("s3://riq/killed"), encoder)
    assert (number, len(store)) == (2, 6)
    assert keys(bucket, "killed") == ["killed/embeddings.safetensors", "killed/index.json"]


def test_a_bucket_that_does_not_exist_is_told_before_anything_is_encoded(bucket, validated):
    with pytest.raises(InputError, match="--out s3://no-such-bucket/x: cannot be written"):
        steps.embed(str(validated), "s3://no-such-bucket/x")
