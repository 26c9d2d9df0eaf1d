"""Hub and tracker that cannot be reached, or reject what they get: one line within seconds."""

import contextlib
import http.server
import os
import subprocess
import sys
import threading
import time

import pytest
import wandb

from rarft import hub, network
from rarft.errors import InputError
from rarft.hub import check_hub_model
from rarft.network import find_unreachable, request_status
from rarft.training.tracking import check_wandb, wandb_run

NAME = "org/model"
CLOSED = "http://127.0.0.1:9"


@contextlib.contextmanager
def answering(status, received=None, delay=0.0):
    """Serve a status; the paths of requests are added to `received`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            if received is not None:
                received.append(self.path)
            time.sleep(delay)
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.end_headers()

        do_GET = do_POST = do_HEAD

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def online(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    names = [name for name in os.environ if name.startswith(("WANDB_", "HF_", "TRANSFORMERS_OFFLINE"))]
    names = [name for name in names if name != "WANDB_SERVICE"]  # the process that W&B started
    for name in (*names, "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.mark.parametrize("status", [200, 404, 503])
def test_request_status(status):
    with answering(status) as url:
        assert request_status(url) == status
        assert find_unreachable(url) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [(CLOSED, "refused"), ("http://no-such-host.invalid", "known|resol"), ("nonsense", "unknown url")],
)
def test_unreachable(url, problem):
    start = time.monotonic()
    assert any(part in find_unreachable(url) for part in problem.split("|"))
    assert time.monotonic() - start < network.TIMEOUT_S + 1


def test_slow_server():
    with answering(200, delay=2.0) as url:
        start = time.monotonic()
        assert "timed out" in (reason := find_unreachable(url, timeout_s=0.3)) or "no answer" in reason
        assert time.monotonic() - start < 1.5


def cache_model():
    from huggingface_hub import constants

    root = f"{constants.HF_HUB_CACHE}/models--org--model"
    os.makedirs(f"{root}/snapshots/0123")  # noqa: PTH103
    os.makedirs(f"{root}/refs")  # noqa: PTH103
    for path, text in ((f"{root}/snapshots/0123/config.json", "{}"), (f"{root}/refs/main", "0123")):
        with open(path, "w") as file:  # noqa: PTH123
            file.write(text)


@pytest.mark.parametrize(
    ("status", "problem"),
    [
        (401, "no such model, or HF_TOKEN lacks access"),
        (403, "no such model, or HF_TOKEN lacks access"),
        (404, "has no such model"),
        (503, "returned 503; check the network"),
    ],
)
def test_hub_status(monkeypatch, status, problem):
    with answering(status) as url:
        monkeypatch.setenv("HF_ENDPOINT", f"{url}/\n")
        with pytest.raises(InputError, match=rf"^{NAME}: the Hub {url} .*{problem}"):
            check_hub_model(NAME)


@pytest.mark.parametrize("status", [200, 302, 307])
def test_hub_has_model(monkeypatch, status):
    monkeypatch.setattr(hub, "request_status", lambda *_: status)
    check_hub_model(NAME)


def test_hub_unreachable(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    with pytest.raises(InputError, match=rf"^{NAME}: the Hub {CLOSED} is unreachable \(.*refused\)"):
        check_hub_model(NAME)


def test_hub_unreachable_with_cached_model(monkeypatch, caplog):
    from huggingface_hub import constants

    cache_model()
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    check_hub_model(NAME)
    assert "using the cached org/model" in caplog.text
    assert constants.HF_HUB_OFFLINE
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_hub_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match=rf"^{NAME}: not in the local cache of the Hub, and HF_HUB_OFFLINE is set"):
        check_hub_model(NAME)
    cache_model()
    check_hub_model(NAME)


def test_train_with_unreachable_hub(main, monkeypatch, validated):
    monkeypatch.setenv("HF_ENDPOINT", CLOSED)
    flags = ["--model_name_or_path", NAME, "--train_data_path", validated]
    code, _, errors = main("train", "--preset", "tiny", *flags)
    assert code == 2
    assert errors.splitlines()[-1].startswith(f"rarft train: --model_name_or_path {NAME}: the Hub {CLOSED} is unreach")


@pytest.mark.parametrize("name", ["a/b", "a:b", "a" * 129])
def test_wandb_project_invalid(monkeypatch, name):
    monkeypatch.setenv("WANDB_PROJECT", name)
    with pytest.raises(InputError, match=rf"^WANDB_PROJECT {name}: .*; choose another name$"):
        check_wandb()


@pytest.mark.parametrize("key", ["SENTINEL", "SENTINEL " * 6])
def test_wandb_key_invalid(monkeypatch, key):
    monkeypatch.setenv("WANDB_API_KEY", key)
    with pytest.raises(InputError, match=r"^WANDB_API_KEY: ") as raised:
        check_wandb()
    assert "SENTINEL" not in str(raised.value)


def test_wandb_online_unreachable(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", CLOSED)
    with pytest.raises(InputError, match=rf"^WANDB_MODE=online: {CLOSED} is unreachable"):
        check_wandb()


def test_wandb_key_is_not_sent_by_the_check():
    check = "from rarft.training.tracking import check_wandb; check_wandb()"
    with answering(500, requests := []) as url:
        environment = {**os.environ, "WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40}
        subprocess.run([sys.executable, "-c", check], env=environment, check=True, timeout=120)
    assert requests == []


@pytest.mark.long
def test_wandb_unreachable_is_offline(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40 + "\n")
    monkeypatch.setenv("WANDB_BASE_URL", CLOSED)
    check_wandb()
    start = time.monotonic()
    with wandb_run(tmp_path, "name"):
        pass
    assert time.monotonic() - start < 60  # W&B alone takes 90 s to give up
    assert f"{CLOSED} is unreachable" in caplog.text
    assert list((tmp_path / "wandb").glob("offline-run-*"))
    wandb.teardown()  # which forgets the key


def test_wandb_wrong_key(monkeypatch, tmp_path):
    """A key that is well-formed, and unknown to the server."""
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with answering(401) as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        check_wandb()
        with pytest.raises(InputError, match=rf"^W&B at {url}: cannot start a run \(.*\); check WANDB_API_KEY"):  # noqa: SIM117
            with wandb_run(tmp_path, "name"):
                pytest.fail("the run started")
    wandb.teardown()


def test_wandb_password_in_url(monkeypatch):
    monkeypatch.setenv("WANDB_BASE_URL", "http://user:SENTINEL@127.0.0.1:9")
    with pytest.raises(InputError, match=r"^WANDB_BASE_URL: contains a user name or a password") as raised:
        check_wandb()
    assert "SENTINEL" not in str(raised.value)
