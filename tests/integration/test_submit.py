"""`rarft submit` and kfp's own command, with the real client, against a fake Kubeflow Pipelines API server."""

import json
import os
import re
import shlex
import subprocess
import sysconfig
from pathlib import Path

import pytest
from google.protobuf import json_format
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from helpers.paths import ROOT
from helpers.pipelines_server import API, Endpoint
from pipelines.preflight import check

COMPILED = ROOT / "pipelines" / "rarft.yaml"
pytestmark = pytest.mark.usefixtures("compile_once")
PAGE = (ROOT / "docs" / "kubeflow.md").read_text().replace("\\\n", "")
DATA = ["-p", "annotations=s3://riq/train.json", "-p", "output_uri=s3://runs/a"]


@pytest.fixture
def endpoint(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))  # kfp stores its context there
    served = Endpoint()
    yield served
    served.close()


def parameters(run):
    return run["runtime_config"]["parameters"]


def test_submit_starts_run_with_parameters(main, endpoint, tmp_path):
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


def test_submit_sends_token(main, endpoint, monkeypatch):
    monkeypatch.setenv("KFP_TOKEN", "let-me-in")
    assert main("submit", "--endpoint", endpoint.url, *DATA)[0] == 0
    assert set(endpoint.tokens) == {"Bearer let-me-in"}


def test_kfp_command_accepts_compiled_file(endpoint):
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
    ("arguments", "message"),
    [
        (["-p", "annotations=a.json"], "-p output_uri=...: required"),
        ([*DATA, "-p", "gpus=8"], "-p gpus: no such parameter"),
        ([*DATA, "-p", "processes=eight"], "-p processes=eight: must be an integer"),
        ([*DATA, "-p", "processes=true"], "-p processes=true: must be an integer"),
        ([*DATA, "-p", 'node_selector=["a"]'], "must be a JSON object"),
        ([*DATA, "-p", "tolerations={}"], "must be a JSON list"),
        ([*DATA, "-p", "accelerators"], "-p accelerators: must have the form name=value"),
        ([*DATA, "-p", "training=@missing.yaml"], "no such file"),
        ([*DATA, "--pipeline", "missing.yaml"], "no such file"),
        ([*DATA, "--pipeline", str(COMPILED), "--profile", "trial"], "is already compiled"),
        ([*DATA, "--profile", "gigantic"], "no such profile"),
        ([*DATA, "-p", "annotations=other.json"], "-p annotations: given twice"),
        ([*DATA, "-p", "training=preset: nope"], "-p training: preset: invalid choice: 'nope'"),
        ([*DATA, "-p", "training=nonsense: 3"], "-p training: nonsense: no such setting"),
        ([*DATA, "-p", "training=max_step: 3"], "max_step: no such setting; did you mean max_steps?"),
        ([*DATA, "-p", "gates=f1>=lots"], "-p gates 'f1>=lots'"),
        ([*DATA, "-p", "gates=no.such>=1"], "unknown metric no.such"),
        ([*DATA, "-p", "processes=-1"], "must be at least 0"),
        ([*DATA, "-p", "nodes=0"], "-p nodes=0: must be at least 1"),
        ([*DATA, "-p", "max_skipped_videos=-1"], "-p max_skipped_videos=-1: must be at least 0"),
        ([*DATA, "-p", "probe=headers"], "-p probe=headers: must be none, header or decode"),
        ([*DATA, "-p", "crop_times=none"], "-p crop_times=none: must be auto, absolute or relative"),
        (
            ["-p", "annotations=a.json", "-p", "output_uri=/data/out", "--profile", "pytorchjob"],
            "-p output_uri=/data/out: the nodes share no disk",
        ),
        ([*DATA, "-p", "video_root=videos"], "-p video_root=videos: a cluster cannot access this machine's files"),
    ],
)
def test_submit_reports_mistake_and_starts_nothing(main, endpoint, arguments, message):
    code, _, errors = main("submit", "--endpoint", endpoint.url, *arguments)
    assert code == 2
    (line,) = errors.strip().splitlines()
    assert message in line
    assert (endpoint.runs, endpoint.experiments, endpoint.tokens) == ([], [], [])


LABELED = {"key": "pool", "operator": "In", "values": ["a100"]}
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
NODES = {
    REQUIRED: {
        "nodeSelectorTerms": [{"matchExpressions": [LABELED, {"key": "cpus", "operator": "Gt", "values": ["8"]}]}]
    },
    PREFERRED: [{"weight": 100, "preference": {"matchExpressions": [{"key": "a.b/c", "operator": "Exists"}]}}],
}


def in_term(**expression):
    return {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [{**LABELED, **expression}]}]}}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("accelerators", "eight", "not a valid Kubernetes quantity of devices"),
        ("train_memory", "lots", "not a valid Kubernetes quantity of bytes"),
        ("memory", "16", "less than 16 MiB; use a unit, such as 16Gi"),
        ("memory", "0Gi", "less than 16 MiB"),
        ("train_disk", "640gb", "not a valid Kubernetes quantity of bytes"),
        ("cpu", "0", "not a valid Kubernetes quantity of CPUs"),
        ("train_cpu", "2.m", "not a valid Kubernetes quantity of CPUs"),
        ("queue", "GPU queue", "not a valid Kubernetes name"),
        ("queue", "a" * 60 + ".queue", "has more than 63 characters"),
        ("priority_class", "High", "not a valid Kubernetes name"),
        ("store_secret", "my_secret", "not a valid Kubernetes name"),
        ("pvc_name", "", "not a valid Kubernetes name"),
        ("train_image", "registry/Train:1", "not an image"),
        ("train_image", "$REGISTRY/rarft-train:0.1.0", "not an image"),
        ("accelerator", "gpu", "not a resource name; use a form such as nvidia.com/gpu"),
        ("node_selector", {"pool": 1}, "the value 1 is not text; put it in quotes"),
        ("node_selector", {"pool": "a b"}, "'a b' is not a valid label value"),
        ("node_selector", {"my pool": "a"}, "'my pool' is not a valid label name"),
        ("tolerations", ["gpu"], "'gpu' is not a JSON object with the fields of a toleration"),
        ("tolerations", [{"keys": "gpu"}], "unknown field keys; a toleration has effect, key"),
        ("tolerations", [{"key": "gpu", "operator": "In"}], "operator 'In': must be Exists or Equal"),
        (
            "tolerations",
            [{"key": "gpu", "effect": "NoRun"}],
            "effect 'NoRun': must be NoSchedule, PreferNoSchedule or",
        ),
        ("tolerations", [{"value": "gpu"}], "a toleration without a key must have the operator Exists"),
        ("tolerations", [{"key": "gpu", "operator": "Exists", "value": "a"}], "Exists has no value; remove it"),
        (
            "tolerations",
            [{"key": "gpu", "tolerationSeconds": 5}],
            "tolerationSeconds must be an integer, and requires",
        ),
        ("affinity", {"nodeAffinity": {}}, "unknown field nodeAffinity; a node affinity has preferred"),
        ("affinity", {REQUIRED: {"nodeSelectorTerms": []}}, "requires nodeSelectorTerms"),
        ("affinity", in_term(operator="Equals"), "operator 'Equals': must be one of In, NotIn"),
        ("affinity", in_term(values=[]), "operator In: cannot have 0 values"),
        ("affinity", in_term(operator="Gt"), "operator Gt: the value 'a100' must be an integer"),
        ("affinity", {PREFERRED: [{"weight": 0, "preference": {}}]}, "weight 0: must be between 1 and 100"),
        ("training", "exp_name: ../other", "--exp_name ../other: must stay inside checkpoints/"),
    ],
)
def test_submit_rejects_impossible_value(main, endpoint, name, value, message):
    text = value if isinstance(value, str) else json.dumps(value)
    code, _, errors = main("submit", "--endpoint", endpoint.url, *DATA, "-p", f"{name}={text}")
    assert code == 2
    (line,) = errors.strip().splitlines()
    assert line.startswith(f"rarft submit: -p {name}")
    assert message in line
    assert (endpoint.runs, endpoint.tokens) == ([], [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-p", "processes=9", "-p", "accelerators=8"], "-p processes=9: more than accelerators=8; use 0"),
        (["--profile", "trainjob", "-p", "priority_class=high"], "-p priority_class=high: a TrainJob cannot set it"),
        (["--namespace", "My_Team"], "--namespace My_Team: not a valid namespace"),
    ],
)
def test_submit_rejects_impossible_combination(main, endpoint, arguments, message):
    code, _, errors = main("submit", "--endpoint", endpoint.url, *DATA, *arguments)
    assert code == 2
    assert message in errors
    assert endpoint.tokens == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cpu", "500m"), ("train_cpu", "0.5"), ("memory", "8G"), ("memory", "17179869184"), ("train_disk", "1Ti"),
        ("queue", ""), ("queue", "team-a.gpus"), ("accelerator", "amd.com/gpu"),
        ("train_image", "localhost:5000/team/rarft-train"), ("train_image", f"ghcr.io/a/b__c@sha256:{'0' * 64}"),
        ("node_selector", {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "empty": ""}), ("affinity", NODES),
        ("tolerations", [{"operator": "Exists"}, {"key": "a.b/c", "value": "d", "effect": "NoSchedule"}]),
        ("tolerations", [{"key": "gpu", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 60}]),
        ("training", "exp_name: rarft/first"),
    ],
)  # fmt: skip
def test_preflight_accepts_possible_value(name, value):
    check({name: value})


def test_submit_rejects_other_file(main, endpoint, tmp_path):
    (tmp_path / "other.yaml").write_text("a: 1\n")
    code, _, errors = main("submit", "--endpoint", endpoint.url, *DATA, "--pipeline", tmp_path / "other.yaml")
    assert code == 2
    assert "not a compiled pipeline" in errors


@pytest.mark.parametrize(
    ("path", "status", "code", "message"),
    [
        (f"{API}/healthz", 401, 2, "returned 401 Unauthorized; set KFP_TOKEN"),
        (f"{API}/healthz", 404, 2, "is it the Kubeflow Pipelines API"),
        (f"{API}/runs", 400, 1, "rejected the run: 400"),
    ],
)
def test_submit_reports_rejection_in_one_line(main, endpoint, path, status, code, message):
    endpoint.rejections[path] = (status, "quota of runs exhausted")
    exit_code, _, errors = main("submit", "--endpoint", endpoint.url, *DATA)
    assert exit_code == code
    (line,) = [line for line in errors.splitlines() if line.startswith("rarft submit: ")]
    assert message in line
    assert "Traceback" not in errors
    assert endpoint.runs == []


def test_submit_rejects_login_page(main, endpoint, monkeypatch):
    monkeypatch.setattr(endpoint, "login_page", True)
    code, _, errors = main("submit", "--endpoint", endpoint.url, *DATA)
    assert code == 2
    assert "unexpected health-check response; is it the Kubeflow Pipelines API" in errors


@pytest.mark.parametrize("address", ["http://localhost:abc", "http://127.0.0.1:9", "localhost:8888"])
def test_submit_reports_unreachable_endpoint(main, address):
    code, _, errors = main("submit", "--endpoint", address, *DATA)
    assert code == 2
    (line,) = errors.strip().splitlines()
    assert line.startswith(f"rarft submit: --endpoint {address}: ")


@pytest.mark.parametrize("line", re.findall(r"^```bash cluster\n(.*?)\n```", PAGE, re.DOTALL | re.MULTILINE))
def test_kubeflow_page_commands_start_run(main, endpoint, tmp_path, line):
    (training,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    (tmp_path / "training.yaml").write_text(training)
    line = line.replace("http://localhost:8888", endpoint.url).replace("$REGISTRY", "registry.example.com/team")
    words = shlex.split(line)
    code, _, errors = main(*words[1:])
    assert code == 0, errors
    (run,) = endpoint.runs
    assert parameters(run)["annotations"].startswith("s3://riq/")
    assert parameters(run).get("training", training) == training
