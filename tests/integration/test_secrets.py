"""No secret is printed, logged or written, whatever a server does; unexpected errors end as one line with a log."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from helpers.paths import ROOT
from rarft.cli.main import build_parser

SECRETS = {
    "AWS_ACCESS_KEY_ID": "SENTINEL-ID-0123456",
    "AWS_SECRET_ACCESS_KEY": "SENTINEL/SECRET+0123456",
    "AWS_SESSION_TOKEN": "SENTINEL/SESSION==0123456",
    "KFP_TOKEN": "Bearer SENTINEL.KFP.0123456",
    "OPENAI_API_KEY": "sk-SENTINEL-OPENAI-0123456",
    "HF_TOKEN": "hf_SENTINEL0123456",
    "WANDB_API_KEY": "SENTINEL" + "0" * 32,
}
PASSWORD = "SENTINEL-PASSWORD"  # in URLs
CLUSTER_TOKEN = "SENTINEL.cluster.0123456"  # in the kubeconfig
# Commands by what they connect to; {url} is that of the server.
COMMANDS = {
    "store": [
        "validate s3://b/a.json --out o",
        "convert s3://b/a.json --out o.jsonl",
        "embed s3://b/valid --out o",
        "negatives s3://b/valid --out o.jsonl",
        "make-dataset --train 1 --eval 0 --out s3://b/o",
        "score s3://b/p.jsonl --data valid --out o",
        "evaluate --predictions s3://b/p.jsonl --data valid --out o",
        "evaluate --checkpoint s3://b/checkpoint --data valid --out o",
        "predict s3://b/v.mp4 query --checkpoint tiny",
        "promote --checkpoint tiny --evaluation s3://b/e --to o",
        "compare-runs s3://b/run",
        "run --annotations s3://b/a.json --out o",
        "train --preset tiny --train_data_path s3://b/valid --report_to none",
        "cache-videos --preset tiny --train_data_path s3://b/valid --frame_cache c",
        "inspect-prompt --preset tiny --train_data_path s3://b/valid",
        "doctor --data s3://b/a.json --out s3://b/o",
        "validate {url}/a.json?X-Amz-Signature=SENTINEL-1&sig=SENTINEL-2 --out o",
        "predict {url}/v.mp4?X-Amz-Signature=SENTINEL-1&sig=SENTINEL-2 query --checkpoint tiny",
    ],
    "hub": [
        "evaluate --checkpoint org/model --data valid --out o",
        "embed valid --encoder org/model --out o",
        "train --preset tiny --model_name_or_path org/model --train_data_path valid --report_to none",
        "doctor",
    ],
    "model": [
        "evaluate --predictions p.jsonl --data valid --judge-url {url}/v1 --judge-model m --out o",
        "negatives valid --mix model=1 --url {url}/v1 --model m --out o.jsonl",
        "predict v.mp4 query --checkpoint tiny --endpoint {url}",
    ],
    "pipelines": [
        "submit --endpoint {url} --pipeline {root}/pipelines/rarft.yaml -p annotations=s3://a/b -p output_uri=s3://a/c",
        "watch r1 --endpoint {url}",
        "watch r1 --endpont {url}",
        "submit --endpoint ftp{url} -p annotations=s3://a/b",
    ],
    "cluster": ["cancel job", "doctor --cluster --kind trainjob"],
}
STATUSES = {"denied": 401, "forbidden": 403, "missing": 404, "broken": 500, "garbage": 200}
FAILURES = ["closed", "password", "two lines", *STATUSES]


class _Echo(BaseHTTPRequestHandler):
    """Answers every request with its own headers and with all secrets."""

    def _answer(self):
        length = int(self.headers.get("Content-Length") or 0)
        self.rfile.read(length)
        self.server.received.append(str(self.headers))
        texts = [self.path, *SECRETS.values(), *(f"{name}: {value}" for name, value in self.headers.items())]
        body = json.dumps({"error": {"message": " ".join(texts)}, "message": " ".join(texts)}).encode()
        self.send_response(self.server.status, f"no {SECRETS['OPENAI_API_KEY']}")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _answer

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    served = ThreadingHTTPServer(("127.0.0.1", 0), _Echo)
    served.received = []
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield served
    served.shutdown()
    served.server_close()


@pytest.fixture
def without_retries(monkeypatch):
    import pipelines.watch
    from rarft.cluster import client
    from rarft.evaluation import judge
    from rarft.negatives import requests
    from rarft.storage import s3

    for module, name, value in (
        (s3, "_REQUEST_ATTEMPTS", 1), (s3, "_TRANSFER_ATTEMPTS", 1), (judge, "_MAX_RETRIES", 0),
        (requests, "_FIRST_WAIT_S", 0.0), (pipelines.watch, "_OUTAGE_TIMEOUT_S", 0.0),
        (pipelines.watch, "_DENIED_TIMEOUT_S", 0.0), (pipelines.watch, "_POLL_INTERVAL_S", 0.01),
    ):  # fmt: skip
        monkeypatch.setattr(module, name, value)
    monkeypatch.setitem(client.call_with_retry.__kwdefaults__, "timeout_s", 0.0)


@pytest.fixture
def connect(monkeypatch, server, tmp_path, validated, sample_set, without_retries):
    """Function that points all services to the server with a failure; it returns the URL."""
    import wandb
    from huggingface_hub import constants

    def connect(failure):
        server.status = STATUSES.get(failure, 401)
        server.received.clear()
        port = 9 if failure == "closed" else server.server_port
        plain = f"http://127.0.0.1:{port}"
        url = f"http://user:{PASSWORD}@127.0.0.1:{port}" if failure in ("closed", "password") else plain
        form = "{}\nSENTINEL-2" if failure == "two lines" else "{}\n"
        for name, value in SECRETS.items():
            monkeypatch.setenv(name, form.format(value))
        for name in ("AWS_ENDPOINT_URL", "HF_ENDPOINT", "WANDB_BASE_URL"):
            monkeypatch.setenv(name, url)
        for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "WANDB_MODE", "RARFT_TERMINATION_LOG"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": plain}}],
            "users": [{"name": "u", "user": {"token": CLUSTER_TOKEN}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "lab"}}],
        }  # fmt: skip
        (tmp_path / "kubeconfig").write_text(json.dumps(config))
        location = "kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
        monkeypatch.setattr(location, str(tmp_path / "kubeconfig"))
        return url

    shutil.copytree(validated, tmp_path / "valid")
    shutil.copy(next((sample_set / "videos").iterdir()), tmp_path / "v.mp4")
    ids = [json.loads(line)["id"] for line in (validated / "riq.jsonl").read_text().splitlines()]
    rows = [{"id": each, "completion": "<think>t</think><answer>1 to 2</answer>"} for each in ids]
    (tmp_path / "p.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    yield connect
    wandb.teardown()  # which forgets the key


def find_secrets(folder):
    """Return the files with a secret."""
    paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "kubeconfig"]
    return [path for path in paths if b"SENTINEL" in path.read_bytes()]


CASES = [
    pytest.param(
        kind, command, failure, marks=() if failure == "denied" and command is commands[0] else pytest.mark.long
    )
    for kind, commands in COMMANDS.items()
    for command in commands
    for failure in FAILURES
    if not (kind == "hub" and failure == "garbage")  # the Hub's library would use the real one
]


@pytest.mark.parametrize(("kind", "command", "failure"), CASES)
def test_no_secret(main, connect, tmp_path, kind, command, failure):
    url = connect(failure)
    code, output, errors = main(*command.format(url=url, root=ROOT).split())
    assert "SENTINEL" not in output + errors
    assert find_secrets(tmp_path) == []
    assert "Traceback" not in errors
    # Failed requests to the judge are counted.
    can_pass = failure == "garbage" or "doctor" in command or (failure == "broken" and "judge" in command)
    assert code in ((0, 1, 2) if can_pass else (1, 2)), errors
    assert code == 0 or errors.splitlines()[-1].startswith("rarft ")


@pytest.mark.long
def test_secrets_are_sent(main, connect, server):
    """The commands above do show their secrets to the server."""
    url = connect("denied")
    for commands in COMMANDS.values():
        for command in commands:
            main(*command.format(url=url, root=ROOT).split())
    received = "".join(server.received)
    sent = {name for name, value in SECRETS.items() if value.split()[-1] in received}
    assert sent >= SECRETS.keys() - {"AWS_SECRET_ACCESS_KEY", "WANDB_API_KEY"}
    assert CLUSTER_TOKEN in received


# Valid arguments of each command, and the function that begins its work.
WORK = {
    "make-dataset": ("--out o", "rarft.steps.make_dataset"),
    "validate": ("a.json --out o", "rarft.steps.validate"),
    "convert": ("a.json --out o", "rarft.steps.convert"),
    "embed": ("valid --out o", "rarft.steps.embed"),
    "negatives": ("valid --out o.jsonl", "rarft.steps.add_negatives"),
    "train": ("--preset tiny", "rarft.steps.train"),
    "cache-videos": ("--preset tiny", "rarft.steps.cache_videos"),
    "inspect-prompt": ("--preset tiny", "rarft.steps.inspect_prompt"),
    "evaluate": ("--checkpoint tiny --out o", "rarft.steps.evaluate"),
    "predict": ("v.mp4 q --checkpoint tiny", "rarft.steps.predict"),
    "promote": ("--checkpoint tiny --evaluation e --to o", "rarft.steps.promote"),
    "score": ("p.jsonl --data valid --out o", "rarft.steps.score"),
    "compare-runs": ("a b", "rarft.steps.compare_runs"),
    "run": ("--annotations a.json --out o", "pipelines.local.run"),
    "compile": ("--out o", "pipelines.compile.compile_pipeline"),
    "submit": ("--endpoint http://h", "pipelines.submit.submit"),
    "watch": ("r1 --endpoint http://h", "pipelines.watch.watch"),
    "cancel": ("job", "rarft.steps.cancel"),
    "doctor": ("", "rarft.steps.doctor"),
}


def test_unexpected_errors_cover_all_commands():
    assert WORK.keys() == build_parser()[1].parsers.keys()


@pytest.mark.parametrize("name", WORK)
def test_unexpected_error(main, monkeypatch, tmp_path, name):
    """One line with the cause and the path of a log with the traceback; no secret in either."""
    arguments, work = WORK[name]
    for variable, value in SECRETS.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("RARFT_TERMINATION_LOG", raising=False)

    def fail(*_, **__):
        raise RuntimeError(f"first line\nhttp://user:{PASSWORD}@host {' '.join(SECRETS.values())}")

    monkeypatch.setattr(work, fail)
    code, output, errors = main(name, *arguments.split())
    line, _, log = errors.strip().splitlines()[-1].partition("; traceback: ")
    assert code == 1
    assert line.startswith(f"rarft {name}: RuntimeError: first line http://***@host ***")
    assert "Traceback" not in errors
    text = Path(log).read_text()
    assert text.splitlines()[1].startswith("rarft ")
    assert "Traceback (most recent call last)" in text
    assert "in fail" in text
    assert "SENTINEL" not in output + errors + text
