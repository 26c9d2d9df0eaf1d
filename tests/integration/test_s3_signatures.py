"""Region, keys and signatures, against SeaweedFS, which checks signatures, and in presigned URLs."""

import os
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from helpers.s3_servers import KEYS, buckets
from rarft.errors import InputError
from rarft.storage import s3
from rarft.storage.location import parse_location


@pytest.fixture(scope="module")
def seaweedfs(tmp_path_factory):
    with buckets("seaweedfs", tmp_path_factory.mktemp("store"), "runs"):
        yield


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"AWS_REGION": "garage"}, "garage"),
        ({"AWS_DEFAULT_REGION": "garage"}, "garage"),
        ({"AWS_REGION": "garage\n", "AWS_DEFAULT_REGION": "other"}, "garage"),
        ({"AWS_REGION": "", "AWS_DEFAULT_REGION": "other"}, "other"),
    ],
)
def test_region_of_signatures(monkeypatch, variables, expected):
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**KEYS, "AWS_DEFAULT_REGION": "", **variables}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert s3.client().meta.region_name == expected


def test_signed_requests(seaweedfs, tmp_path):
    folder = parse_location("s3://runs/signed")
    folder.make()
    folder.write("a", b"content")
    assert folder.read("a") == b"content"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "another-secret"),
        ("AWS_ACCESS_KEY_ID", "another-key"),
    ],
)
def test_wrong_signature(seaweedfs, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=r"^s3://runs/signed: cannot be written \(.*check the credentials") as raised:
        parse_location("s3://runs/signed").make()
    assert value not in str(raised.value)
    with pytest.raises(InputError, match=f"{name}; check the credentials|does not know {name}"):
        parse_location("s3://runs/signed").write("a", b"")


def test_no_credentials(monkeypatch, tmp_path):
    """Neither in the environment nor in the files and services where boto3 looks."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(InputError, match=r"^s3://runs/a/b: .*\(no credentials; set AWS_ACCESS_KEY_ID and "):
        parse_location("s3://runs/a").write("b", b"")


def test_endpoint_without_tls(monkeypatch):
    """An endpoint with https:// that speaks HTTP."""
    server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(s3, "_REQUEST_ATTEMPTS", 1)
    with pytest.raises(InputError, match=r"the endpoint does not speak TLS; use http:// in AWS_ENDPOINT_URL"):
        parse_location("s3://runs/a").read("b")
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", [*KEYS, "AWS_ENDPOINT_URL"])
def test_trailing_newline(seaweedfs, monkeypatch, name):
    monkeypatch.setenv(name, f"{os.environ[name]}\r\n")
    folder = parse_location("s3://runs/newline")
    folder.write("a", b"content")
    assert folder.read("a") == b"content"


# Commands that use each secret, and fail on it.
COMMANDS = {
    "store": ["validate", "s3://b/a.json", "--out", "o"],
    "output": ["make-dataset", "--out", "s3://b/a", "--train", "1", "--eval", "0"],
    "endpoint": ["submit", "--endpoint", "http://127.0.0.1:9", "-p", "annotations=s3://a/b", "-p", "output_uri=s3://a/c"],
    "url": ["submit", "--endpoint", "http://user:PASSWORD-1234@127.0.0.1:9", "-p", "annotations=s3://a/b", "-p",
            "output_uri=s3://a/c"],
}  # fmt: skip


@pytest.mark.usefixtures("compile_once")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("form", ["{}", "{}\n", "{}\nsecond line", "{} x", "{}\u00e9"])
def test_no_secret_in_messages(main, monkeypatch, command, form):
    names = {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "KFP_TOKEN", "OPENAI_API_KEY"}
    for number, name in enumerate(sorted(names)):
        monkeypatch.setenv(name, form.format(f"SENTINEL-{number}"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(s3, "_REQUEST_ATTEMPTS", 1)
    code, output, errors = main(*COMMANDS[command])
    assert code == 2
    assert "SENTINEL" not in output + errors
    assert "PASSWORD" not in output + errors
    assert "Signature=" not in output + errors
