"""`rarft submit` and kfp's own command, by the real client, against a server that speaks the API's protocol."""

import json
import os
import re
import shlex
import subprocess
import sysconfig
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from helpers.paths import ROOT

COMPILED = ROOT / "pipelines" / "rarft.yaml"
PAGE = (ROOT / "docs" / "kubeflow.md").read_text()
DATA = ["-p", "annotations=s3://riq/train.json", "-p", "output_uri=s3://runs/a"]
API = "/apis/v2beta1"
STARTED = {"run_id": "r1", "state": "PENDING", "created_at": "2026-01-01T00:00:00Z"}


class Endpoint:
    """Stands for Kubeflow Pipelines' API server: its requests and answers, and none of its doings."""

    def __init__(self):
        self.runs, self.experiments, self.tokens = [], [], []
        self.refuses = {}  # path: (status, body)
        self.login_page = False  # whatever is asked for, a page to log in is the answer
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def _answer(self, value, status=200):
                body = json.dumps(value).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _refused(self):
                path = self.path.partition("?")[0]
                outer.tokens.append(self.headers.get("Authorization"))
                if outer.login_page:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(b"<html>log in</html>")
                    return True
                if path in outer.refuses:
                    status, message = outer.refuses[path]
                    self._answer({"error": message, "message": message}, status)
                    return True
                return False

            def do_GET(self):
                if self._refused():
                    return
                if self.path.startswith(f"{API}/healthz"):
                    self._answer({"multi_user": False})
                elif self.path.startswith(f"{API}/experiments"):
                    self._answer({"experiments": outer.experiments})
                elif self.path == f"{API}/runs/r1":
                    self._answer({**outer.runs[0], **STARTED})
                else:
                    self._answer({"error": "no such thing"}, 404)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self._refused():
                    return
                if self.path.startswith(f"{API}/experiments"):
                    outer.experiments.append({"experiment_id": "e1", **body})
                    self._answer(outer.experiments[-1])
                elif self.path.startswith(f"{API}/runs"):
                    outer.runs.append(body)
                    self._answer({**body, **STARTED})
                else:
                    self._answer({"error": "no such thing"}, 404)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def endpoint(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # kfp keeps its context there
    served = Endpoint()
    threading.Thread(target=served.server.serve_forever, daemon=True).start()
    yield served
    served.server.shutdown()
    served.server.server_close()


def parameters(run):
    return run["runtime_config"]["parameters"]


def test_a_run_is_started_with_its_parameters(main, endpoint, tmp_path):
    (tmp_path / "training.yaml").write_text("preset: 8xA100-80\nexp_name: first\n")
    tolerations = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    given = [
        "training=@training.yaml", "accelerators=8", "processes=8", 'node_selector={"pool": "a100"}',
        f"tolerations={json.dumps(tolerations)}", "train_image=registry/train:1", "gates=ra_iou.mean>=base",
    ]  # fmt: skip
    flags = [part for assignment in given for part in ("-p", assignment)]
    code, output, errors = main("submit", "--endpoint", endpoint.url, *DATA, *flags, "--name", "first try")
    assert code == 0, errors
    assert output.splitlines()[-1] == f"{endpoint.url}/#/runs/details/r1"
    (run,) = endpoint.runs
    assert (run["display_name"], run["experiment_id"]) == ("first try", "e1")
    assert [experiment["display_name"] for experiment in endpoint.experiments] == ["rarft"]
    assert parameters(run) == {
        "annotations": "s3://riq/train.json",
        "output_uri": "s3://runs/a",
        "training": "preset: 8xA100-80\nexp_name: first\n",
        "accelerators": "8",
        "processes": 8,
        "node_selector": {"pool": "a100"},
        "tolerations": tolerations,
        "train_image": "registry/train:1",
        "gates": "ra_iou.mean>=base",
    }
    sent = run["pipeline_spec"]
    spec = json_format.ParseDict(sent.get("pipeline_spec", sent), PipelineSpec())
    assert set(parameters(run)) <= set(spec.root.input_definitions.parameters)
    assert "kubernetes" in sent["platform_spec"]["platforms"]


def test_a_token_is_sent(main, endpoint, monkeypatch):
    monkeypatch.setenv("KFP_TOKEN", "let-me-in")
    assert main("submit", "--endpoint", endpoint.url, *DATA)[0] == 0
    assert set(endpoint.tokens) == {"Bearer let-me-in"}


def test_kfps_own_command_takes_the_compiled_file(endpoint):
    kfp = Path(sysconfig.get_path("scripts")) / "kfp"
    command = [kfp, "--endpoint", endpoint.url, "run", "create", "-e", "rarft", "-f", COMPILED]
    arguments = ["annotations=s3://riq/train.json", "output_uri=s3://runs/a", 'accelerators="8"']
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    (run,) = endpoint.runs
    assert parameters(run) == {
        "annotations": "s3://riq/train.json", "output_uri": "s3://runs/a", "accelerators": "8"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-p", "annotations=a.json"], "-p output_uri=...: must be given"),
        ([*DATA, "-p", "gpus=8"], "-p gpus: the pipeline has no such parameter"),
        ([*DATA, "-p", "processes=eight"], "-p processes=eight: must be a whole number"),
        ([*DATA, "-p", "processes=true"], "-p processes=true: must be a whole number"),
        ([*DATA, "-p", 'node_selector=["a"]'], "must be a JSON object"),
        ([*DATA, "-p", "tolerations={}"], "must be a JSON list"),
        ([*DATA, "-p", "accelerators"], "-p accelerators: give it as name=value"),
        ([*DATA, "-p", "training=@missing.yaml"], "no such file"),
        ([*DATA, "--pipeline", "missing.yaml"], "no such file"),
        ([*DATA, "--pipeline", str(COMPILED), "--profile", "trial"], "is compiled already"),
        ([*DATA, "--profile", "gigantic"], "no such profile"),
        ([*DATA, "-p", "annotations=other.json"], "-p annotations: is given twice"),
        ([*DATA, "-p", "training=preset: nope"], "-p training: preset: invalid choice: 'nope'"),
        ([*DATA, "-p", "training=nonsense: 3"], "-p training: nonsense: no such setting"),
        ([*DATA, "-p", "training=max_step: 3"], "max_step: no such setting; did you mean max_steps?"),
        ([*DATA, "-p", "gates=f1>=lots"], "--gate 'f1>=lots'"),
        ([*DATA, "-p", "gates=no.such>=1"], "no metric no.such"),
        ([*DATA, "-p", "processes=-1"], "must be at least 0"),
        ([*DATA, "-p", "nodes=0"], "-p nodes=0: must be at least 1"),
        (
            ["-p", "annotations=a.json", "-p", "output_uri=/data/out", "--profile", "pytorchjob"],
            "-p output_uri=/data/out: the machines share no disk",
        ),
        ([*DATA, "-p", "accelerators=eight"], "-p accelerators=eight: is no quantity"),
        ([*DATA, "-p", "train_memory=lots"], "-p train_memory=lots: is no quantity"),
        ([*DATA, "-p", 'affinity={"nodeAffinity": {}}'], "-p affinity: has nodeAffinity; give a node affinity"),
        ([*DATA, "-p", "video_root=videos"], "-p video_root=videos: a cluster does not see this machine's files"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_started(main, endpoint, arguments, told):
    code, _, errors = main("submit", "--endpoint", endpoint.url, *arguments)
    assert code == 2
    (line,) = errors.strip().splitlines()
    assert told in line
    assert (endpoint.runs, endpoint.experiments, endpoint.tokens) == ([], [], [])


def test_a_file_that_is_no_pipeline_is_told(main, endpoint, tmp_path):
    (tmp_path / "other.yaml").write_text("a: 1\n")
    code, _, errors = main("submit", "--endpoint", endpoint.url, *DATA, "--pipeline", tmp_path / "other.yaml")
    assert code == 2
    assert "no compiled pipeline" in errors


@pytest.mark.parametrize(
    ("path", "status", "code", "told"),
    [
        (f"{API}/healthz", 401, 2, "answered 401 Unauthorized; set KFP_TOKEN"),
        (f"{API}/healthz", 404, 2, "is it the address of Kubeflow Pipelines' API"),
        (f"{API}/runs", 400, 1, "refused the run: 400"),
    ],
)
def test_an_endpoint_that_refuses_is_told_in_one_line(main, endpoint, path, status, code, told):
    endpoint.refuses[path] = (status, "quota of runs is used up")
    ended, _, errors = main("submit", "--endpoint", endpoint.url, *DATA)
    assert ended == code
    (line,) = [line for line in errors.splitlines() if line.startswith("rarft submit: ")]
    assert told in line
    assert "Traceback" not in errors
    assert endpoint.runs == []


def test_a_login_page_is_not_taken_for_the_api(main, endpoint, monkeypatch):
    monkeypatch.setattr(endpoint, "login_page", True)
    code, _, errors = main("submit", "--endpoint", endpoint.url, *DATA)
    assert code == 2
    assert "answered something else than its health; is it the address of" in errors


@pytest.mark.parametrize("address", ["http://localhost:abc", "http://127.0.0.1:9", "localhost:8888"])
def test_an_endpoint_that_is_not_there_is_told_in_one_line(main, address):
    code, _, errors = main("submit", "--endpoint", address, *DATA)
    assert code == 2
    (line,) = errors.strip().splitlines()
    assert line.startswith(f"rarft submit: --endpoint {address}: ")


@pytest.mark.parametrize("line", re.findall(r"^```bash cluster\n(.*?)\n```", PAGE, re.DOTALL | re.MULTILINE))
def test_a_command_of_the_page_starts_a_run(main, endpoint, tmp_path, line):
    (training,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "training.yaml").write_text(training)
    words = shlex.split(line.replace("http://localhost:8888", endpoint.url))
    code, _, errors = main(*words[1:])
    assert code == 0, errors
    (run,) = endpoint.runs
    assert parameters(run)["annotations"].startswith("s3://riq/")
    assert parameters(run).get("training", training) == training
