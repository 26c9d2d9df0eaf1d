"""Local and S3 folders behave the same; the S3 store is a server on loopback."""

import os
import re

import pytest

from helpers.s3_servers import buckets
from rarft.errors import InputError
from rarft.storage.files import local_path
from rarft.storage.location import LocalFolder, S3Folder, open_local, parse_location
from rarft.storage.s3 import ObjectNotFoundError


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with buckets("moto", tmp_path_factory.mktemp("store"), "bucket"):
        yield


@pytest.fixture(params=["local", "s3"])
def location(request, tmp_path):
    if request.param == "local":
        return LocalFolder(tmp_path / "folder")
    request.getfixturevalue("store")
    return S3Folder(f"s3://bucket/{os.urandom(4).hex()}")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("/a/b", "/a/b"),
        ("a/b", "a/b"),
        ("file:///a%20b/c%23", "/a b/c#"),
        ("file://localhost/a", "/a"),
        ("s3://bucket/a/", "s3://bucket/a"),
        ("s3://bucket", "s3://bucket"),
    ],
)
def test_parse_location(uri, expected):
    assert str(parse_location(uri)) == expected


@pytest.mark.parametrize("uri", ["gs://bucket/a", "file://host/a"])
def test_parse_location_invalid(uri):
    with pytest.raises(InputError, match=f"^{uri}: "):
        parse_location(uri)


def test_names():
    assert S3Folder("s3://b/a/c").name == "c"
    assert S3Folder("s3://b/a/c").parent == S3Folder("s3://b/a")
    assert S3Folder("s3://b/a").parent == S3Folder("s3://b").parent == S3Folder("s3://b")
    assert LocalFolder(local_path("a/c")).parent == LocalFolder(local_path("a"))
    assert str(S3Folder("s3://b").child("x/y")) == "s3://b/x/y"


def test_read_write_delete(location):
    location.make()
    assert location.sizes() == {}
    location.write("a/b.txt", b"text")
    assert location.exists("a/b.txt")
    assert location.read("a/b.txt") == location.child("a").read("b.txt") == b"text"
    assert location.sizes() == {"a/b.txt": 4}
    before = location.version("a/b.txt")
    location.write("a/b.txt", b"longer")
    assert location.version("a/b.txt") != before
    location.delete("a/b.txt")
    location.delete("a/b.txt")
    assert not location.exists("a/b.txt")
    location.write("c", b"")
    location.remove()
    assert location.sizes() == {}


def test_missing_file(location):
    location.make()
    with pytest.raises(ObjectNotFoundError, match=r"absent.*check the path"):
        location.read("absent")
    with pytest.raises(InputError, match="absent"), location.download(["absent"]):
        pass
    with pytest.raises(InputError, match="absent"), open_local(str(location.child("absent"))):
        pass


def test_upload_download(location, tmp_path):
    source = tmp_path / "source"
    source.write_bytes(b"content")
    location.upload([("videos/a", source), ("b", source)])
    with location.download(["videos/a"]) as folder:
        assert (folder / "videos/a").read_bytes() == b"content"
    with open_local(str(location.child("b"))) as path:
        assert path.read_bytes() == b"content"


def test_write_files(location):
    location.make()
    for name in ("marker", "stale", "other"):
        location.write(name, b"old")
    with location.write_files("marker", stale=["stale"]) as folder:
        for name in ("marker", "z"):
            (folder / name).write_bytes(b"new")
    assert location.sizes().keys() == {"marker", "other", "z"}
    assert location.read("marker") == b"new"


def test_write_files_error(location):
    location.make()
    location.write("marker", b"old")
    with pytest.raises(ZeroDivisionError), location.write_files("marker") as folder:
        (folder / "marker").write_bytes(b"%d" % (1 // 0))
    assert location.sizes() == {"marker": 3}
    assert location.read("marker") == b"old"


def test_make_unwritable(store, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file/sub: cannot be written \(.*\); choose another folder"):
        LocalFolder(tmp_path / "file" / "sub").make()
    with pytest.raises(InputError, match=r"^s3://absent/x: cannot be written"):
        S3Folder("s3://absent/x").make()


@pytest.mark.parametrize(
    ("uri", "expected"),
    [("S3://bucket/a", "s3://bucket/a"), ("s3://bucket//", "s3://bucket"), ("FILE:///a%20b", "/a b"), ("a:b", "a:b")],
)
def test_parse_location_normalizes(uri, expected):
    assert str(parse_location(uri)) == expected
    assert str(parse_location(uri).child("report.html")) == f"{expected}/report.html"


@pytest.mark.parametrize(
    ("uri", "hint"),
    [
        ("s3:/bucket/a", "did you mean s3://bucket/a?"),
        ("s3:bucket", "did you mean s3://bucket?"),
        ("file:/a", "did you mean file:///a?"),
        ("s3://", "no bucket; use s3://BUCKET/KEY"),
        ("s3:///a", "no bucket"),
        ("s3://a b/c", "invalid bucket name 'a b'"),
    ],
)
def test_parse_location_hint(uri, hint):
    with pytest.raises(InputError, match=rf"^{uri}: .*{re.escape(hint)}"):
        parse_location(uri)


@pytest.mark.parametrize(
    ("uri", "problem"), [("o\udcff/a", "not valid utf-8"), ("a/" + "x" * 256, "a name longer than 255 bytes")]
)
def test_parse_location_impossible_name(uri, problem):
    with pytest.raises(InputError, match=problem):
        parse_location(uri)
