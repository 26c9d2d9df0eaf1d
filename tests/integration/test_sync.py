"""Folders in an object store: complete or not there, over connections that are cut, on two different servers."""

import os
import random
from pathlib import Path

import pytest

from helpers.s3_servers import KEYS, SERVERS, CuttingProxy, serving
from rarft.storage import s3
from rarft.storage.manifest import CorruptFolderError, hash_files, write_manifest
from rarft.storage.sync import download_folder, upload_folder

MANIFEST = "checkpoint.json"
CUTS: list[int] = []  # connections that each test lost
# A few at every test run; all of them by `pytest -m long`.
SEEDS = [pytest.param(seed, marks=pytest.mark.long if seed > 3 else ()) for seed in range(50)]


@pytest.fixture(scope="module", params=SERVERS)
def server(request, tmp_path_factory):
    with serving(request.param, tmp_path_factory.mktemp("objects")) as port:
        yield port


@pytest.fixture
def proxy(server, monkeypatch, request):
    """A proxy before the server that cuts nothing yet; the store is reached through it, with little patience."""
    proxy = CuttingProxy(server, seed=request.node.callspec.params.get("seed", 0))
    monkeypatch.setattr(s3, "_CONNECT_TIMEOUT_S", 2.0)
    monkeypatch.setattr(s3, "_READ_TIMEOUT_S", 1.0)
    monkeypatch.setattr(s3, "_REQUEST_ATTEMPTS", 2)
    monkeypatch.setattr(s3, "_PART_SIZE", 5 * 2**20)
    for name, value in {**KEYS, "AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}.items():
        monkeypatch.setenv(name, value)
    s3._client.cache_clear()
    client = s3.client()
    if "runs" not in {bucket["Name"] for bucket in client.list_buckets()["Buckets"]}:
        client.create_bucket(Bucket="runs")
    yield proxy
    proxy.close()
    s3._client.cache_clear()


def folder_of(path, rng):
    """A folder like a checkpoint's: small files, one in parts, one in a subfolder, one empty."""
    sizes = {"config.json": 300, "model.safetensors": 6 * 2**20, "global_step2/optimizer.pt": 70_000, "empty": 0}
    for name, size in sizes.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(rng.randbytes(size))
    write_manifest(path, MANIFEST, {"seed": str(rng.random())}, hash_files(path, MANIFEST))
    return path


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()
    }


def pending(uri):
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    return s3.client().list_multipart_uploads(Bucket=bucket, Prefix=prefix).get("Uploads") or []


@pytest.mark.parametrize("seed", SEEDS)
def test_over_connections_that_are_cut_a_folder_is_complete_or_not_there(proxy, tmp_path, seed):
    rng = random.Random(seed)
    uri = f"s3://runs/{os.urandom(4).hex()}/checkpoint-2"
    earlier, folder = folder_of(tmp_path / "earlier", rng), folder_of(tmp_path / "folder", rng)
    wanted, whole = content(folder), [content(earlier), content(folder)]
    if seed % 2:  # the folder takes another's place
        upload_folder(earlier, uri, MANIFEST, "--out")
    for attempt, proxy.share in enumerate([rng.uniform(0.2, 0.9), 0.2, 0.0]):
        try:
            upload_folder(folder, uri, MANIFEST, "--out")
        except s3.StoreError:
            sent = False
        else:
            sent = True
        cutting, proxy.share = proxy.share, 0.0
        got = tmp_path / f"got{attempt}"
        try:
            download_folder(uri, got, MANIFEST, "--out")
        except CorruptFolderError:
            assert not sent
            assert not got.exists()
        else:
            assert content(got) in ([wanted] if sent else whole)
        proxy.share = cutting
        try:
            download_folder(uri, tmp_path / f"cut{attempt}", MANIFEST, "--out")
        except (s3.StoreError, CorruptFolderError):
            assert not (tmp_path / f"cut{attempt}").exists()
        else:
            assert content(tmp_path / f"cut{attempt}") in whole
        if sent:
            break
    assert sent
    proxy.share = 0.0
    assert pending(uri) == []
    assert s3.sizes(uri, "--out").keys() == wanted.keys()
    CUTS.append(proxy.cuts)


def test_connections_were_cut():
    assert sum(CUTS) > len(CUTS) / 2
