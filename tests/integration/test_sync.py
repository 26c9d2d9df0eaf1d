"""Folders in two S3 servers over connections that are cut: complete, or without a manifest."""

import os
import random
from pathlib import Path

import pytest

from helpers.s3_servers import KEYS, SERVERS, CuttingProxy, serving
from rarft.storage import s3
from rarft.storage.location import S3Folder
from rarft.storage.manifest import CorruptFolderError, hash_files, write_manifest
from rarft.storage.sync import download_folder, upload_folder

MANIFEST = "checkpoint.json"
CUTS: list[int] = []  # cut connections of each test
# `pytest -m long` runs all of them.
SEEDS = [pytest.param(seed, marks=pytest.mark.long if seed > 1 else ()) for seed in range(50)]


@pytest.fixture(scope="module", params=SERVERS)
def server(request, tmp_path_factory):
    with serving(request.param, tmp_path_factory.mktemp("objects")) as port:
        yield port


@pytest.fixture
def proxy(server, monkeypatch, request):
    """A proxy in front of the server that does not cut yet; clients use it with short timeouts."""
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


def make_folder(path, rng):
    """Like a checkpoint: small files, one in parts, one in a subfolder, one empty."""
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
def test_sync_over_cut_connections(proxy, tmp_path, seed):
    rng = random.Random(seed)
    uri = f"s3://runs/{os.urandom(4).hex()}/checkpoint-2"
    remote = S3Folder(uri)
    earlier, folder = make_folder(tmp_path / "earlier", rng), make_folder(tmp_path / "folder", rng)
    wanted, complete_states = content(folder), [content(earlier), content(folder)]
    if seed % 2:  # an earlier folder is replaced
        upload_folder(earlier, remote, MANIFEST)
    for attempt, proxy.share in enumerate([rng.uniform(0.2, 0.9), 0.2, 0.0]):
        try:
            upload_folder(folder, remote, MANIFEST)
        except s3.StoreError:
            uploaded = False
        else:
            uploaded = True
        cutting, proxy.share = proxy.share, 0.0
        downloaded = tmp_path / f"got{attempt}"
        try:
            download_folder(remote, downloaded, MANIFEST)
        except CorruptFolderError:
            assert not uploaded
            assert not downloaded.exists()
        else:
            assert content(downloaded) in ([wanted] if uploaded else complete_states)
        proxy.share = cutting
        try:
            download_folder(remote, tmp_path / f"cut{attempt}", MANIFEST)
        except (s3.StoreError, CorruptFolderError):
            assert not (tmp_path / f"cut{attempt}").exists()
        else:
            assert content(tmp_path / f"cut{attempt}") in complete_states
        if uploaded:
            break
    assert uploaded
    proxy.share = 0.0
    assert pending(uri) == []
    assert S3Folder(uri).sizes().keys() == wanted.keys()
    CUTS.append(proxy.cuts)


def test_proxy_cut_connections():
    assert sum(CUTS) > len(CUTS) / 2
