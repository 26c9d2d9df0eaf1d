"""`rarft doctor` and `rarft cancel` against a fake Kubernetes API server."""

import re
from types import SimpleNamespace

import pytest

from helpers.cluster_server import Cluster
from rarft.cluster import client as cluster_api
from rarft.cluster import doctor_local
from rarft.cluster.job_config import Job
from rarft.cluster.permissions import DOCTOR_CLUSTER_RULES, DOCTOR_RULES, LAUNCHER_RULES
from rarft.cluster.pytorchjob import pytorchjob
from rarft.errors import InputError

JOB = pytorchjob(Job(name="first", image="i", arguments=[]))


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    served = Cluster()
    monkeypatch.setenv("KUBECONFIG", str(served.kubeconfig(tmp_path / "kubeconfig")))
    # The client reads it once, at import.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(cluster_api, "_INITIAL_DELAY_S", 0.05)
    yield served
    served.close()


def rows(output):
    return {line.split("  ")[0]: line for line in output.splitlines()}


def test_doctor_passing_and_skipped_checks(main, cluster, sample_set, tmp_path):
    code, output, errors = main("doctor", "--data", sample_set / "train.json", "--out", tmp_path / "out")
    assert code == 0, errors
    table = rows(output)
    assert {"versions", "GPUs", "disk", "data", "out", "cluster", "caches", "hub", "tracker"} <= set(table)
    assert not [line for line in table.values() if "failed" in line]
    assert "skipped" in table["cluster"]
    assert f"{(sample_set / 'train.json').stat().st_size} bytes" in table["data"]


def test_doctor_reports_all_failures(main, cluster, tmp_path):
    (tmp_path / "file").write_text("")
    code, output, errors = main(
        "doctor", "--data", "missing.json", "--out", tmp_path / "file" / "out", "--gpus", "64"
    )  # fmt: skip
    assert code == 1
    assert errors.strip() == "rarft doctor: failed checks: GPUs, data, out"
    table = rows(output)
    assert "0 of 64 visible" in table["GPUs"]
    assert "no such file" in table["data"]
    assert "cannot be written" in table["out"]


@pytest.mark.parametrize(
    ("gpus", "free", "message"),
    [
        (0, 10e9, None),
        (8, 60e9, None),
        (0, 0.5e9, "training the tiny model needs 1 GB"),
        (8, 10e9, "training the 7B model needs 50 GB"),
    ],
)
def test_required_disk_space_depends_on_gpus(monkeypatch, gpus, free, message):
    monkeypatch.setattr(doctor_local, "gpu_count", lambda: gpus)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=free))
    if message is None:
        assert f"{free / 1e9:.1f} GB free" in doctor_local.disk()
    else:
        with pytest.raises(InputError, match=message):
            doctor_local.disk()


def node(name, gpus="0", image=None, ready="True", unschedulable=False):
    images = [{"names": [image], "sizeBytes": 1}] if image else []
    status = {"images": images, "allocatable": {"nvidia.com/gpu": gpus}}
    conditions = [{"type": "Ready", "status": ready}]
    return {
        "metadata": {"name": name}, "spec": {"unschedulable": unschedulable},
        "status": {**status, "conditions": conditions},
    }  # fmt: skip


def test_doctor_cluster(main, cluster):
    image = "registry/train:1"
    cluster.nodes = [node("a", "8", image), node("b", "8"), node("c", "8", ready="False")]
    code, output, errors = main("doctor", "--cluster", "--image", image, "--queue", "gpus", "--gpus", "16")
    assert code == 0, errors
    table = rows(output)
    assert "in lab all that the launcher needs" in table["permissions"]
    assert table["TrainJob"].endswith("Kubeflow Trainer 2 runs; a job would be accepted")
    assert table["PyTorchJob"].endswith("Kubeflow's Training Operator 1.9 runs; a job would be accepted")
    assert "16 nvidia.com/gpu on 2 ready nodes, some of which may be in use" in table["cluster GPUs"]
    assert "3 pending, 1 admitted" in table["queue"]
    assert "on 1 of 3 nodes" in table["image"]
    assert cluster.jobs == {}


def test_doctor_calls_equal_roles(main, cluster):
    """With `cancel`, the checks use the rules of the base and exactly the optional ones."""
    main("doctor", "--cluster", "--image", "i", "--queue", "gpus", "--gpus", "1")
    main("cancel", "absent")
    rules = {
        (verb, resource)
        for rule in (*DOCTOR_RULES, *DOCTOR_CLUSTER_RULES)
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    launcher = {
        (verb, resource) for rule in LAUNCHER_RULES for resource in rule["resources"] for verb in rule["verbs"]
    }
    assert set(cluster.calls) - launcher == rules


def test_doctor_too_few_gpus(main, cluster):
    cluster.nodes = [node("a", "8"), node("b", "8", unschedulable=True)]
    code, output, _ = main("doctor", "--cluster", "--gpus", "16")
    assert code == 1
    assert re.search(r"cluster GPUs +failed +8 nvidia.com/gpu on 1 ready nodes, not 16; add nodes", output)


@pytest.mark.parametrize(
    ("unknown", "operators", "arguments", "code", "message"),
    [
        (
            set(),
            {"trainjob"},
            [],
            1,
            r"PyTorchJob +failed +Kubeflow's Training Operator 1.9 is installed and does not run",
        ),
        ({"pytorchjobs"}, {"trainjob"}, [], 0, r"PyTorchJob +skipped +not installed"),
        ({"pytorchjobs"}, {"trainjob"}, ["--kind", "pytorchjob"], 1, r"PyTorchJob +failed .*is not installed"),
        ({"pytorchjobs", "trainjobs"}, set(), [], 1, r"TrainJob +failed .*is not installed"),
    ],
)
def test_doctor_operator_state(main, cluster, unknown, operators, arguments, code, message):
    cluster.unknown, cluster.operators = unknown, operators
    exit_code, output, _ = main("doctor", "--cluster", *arguments)
    assert exit_code == code
    assert re.search(message, output)


def test_doctor_job_that_would_be_denied(main, cluster):
    cluster.runtime_problem = "the TrainingRuntime rarft does not exist"
    code, output, _ = main("doctor", "--cluster", "--kind", "trainjob")
    assert code == 1
    assert re.search(r"TrainJob +failed +dry run of a TrainJob: .*the TrainingRuntime rarft does not exist", output)


def test_doctor_unknown_namespace(main, cluster):
    code, output, errors = main("doctor", "--cluster", "--namespace", "nosuch")
    assert code == 1
    assert errors.strip() == "rarft doctor: failed checks: namespace"
    assert re.search(r'namespace +failed +nosuch: namespaces "nosuch" not found; set --namespace', output)


def test_doctor_missing_permissions_and_quota(main, cluster):
    cluster.forbidden = {("create", "pytorchjobs"), ("get", "pods/log")}
    full = {"requests.nvidia.com/gpu": "16"}
    cluster.quotas = [{"metadata": {"name": "q"}, "status": {"hard": full, "used": full}}]
    code, output, errors = main("doctor", "--cluster")
    assert code == 1
    assert "failed checks: permissions, quota" in errors
    assert "may not create pytorchjobs, get pods/log; kubectl apply -k k8s/base" in output
    assert "quota exhausted: requests.nvidia.com/gpu 16 of 16" in output


def test_doctor_missing_queue(main, cluster):
    code, output, _ = main("doctor", "--cluster", "--queue", "nothing")
    assert code == 1
    assert re.search(r'queue +failed +get queue: 404 localqueues "nothing" not found', output)


def test_doctor_forbidden_check_is_skipped(main, cluster):
    """The checks that need the optional Role name it."""
    cluster.forbidden = {("list", "resourcequotas"), ("list", "nodes"), ("get", "namespaces"), ("get", "localqueues")}
    code, output, errors = main("doctor", "--cluster", "--image", "i", "--queue", "gpus", "--gpus", "8")
    assert code == 0, errors
    for check in ("namespace", "quota", "cluster GPUs", "queue", "image"):
        assert re.search(rf"{check} +skipped +get .*cannot .*; kubectl apply -k k8s/doctor", output)


def test_doctor_without_cluster(main, cluster, monkeypatch, tmp_path):
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "nothing"))
    code, output, _ = main("doctor", "--cluster")
    assert code == 1
    assert "no cluster configured" in output


def test_cancel_deletes_job(main, cluster):
    cluster.jobs["first"] = JOB
    code, output, _ = main("cancel", "first")
    assert code == 0
    assert "job first in namespace lab: deleted" in output
    assert cluster.jobs == {}


def test_cancel_missing_job_lists_existing(main, cluster):
    cluster.jobs["first"] = JOB
    code, _, errors = main("cancel", "second")
    assert code == 2
    assert errors.strip() == "rarft cancel: job second: not found in namespace lab; existing jobs: first"
    assert set(cluster.jobs) == {"first"}


def test_cancel_without_right_to_list(main, cluster):
    cluster.forbidden = {("list", "pytorchjobs"), ("list", "trainjobs")}
    code, _, errors = main("cancel", "second")
    assert code == 2
    assert errors.strip() == ("rarft cancel: job second: not found in namespace lab; check the name and the namespace")


def test_cancel_without_right_for_one_kind(main, cluster):
    """A Role of an earlier release grants PyTorchJobs only."""
    cluster.forbidden = {(verb, "trainjobs") for verb in ("delete", "list")}
    cluster.jobs["first"] = JOB
    assert main("cancel", "first")[0] == 0
    code, _, errors = main("cancel", "second")
    assert code == 2
    (line,) = errors.strip().splitlines()
    assert "delete job second: trainjobs is forbidden" in line


def test_cancel_without_operators(main, cluster):
    cluster.unknown = {"pytorchjobs", "trainjobs"}
    code, _, errors = main("cancel", "first")
    assert code == 2
    (line,) = errors.strip().splitlines()
    assert line.endswith("is Kubeflow Trainer 2 installed?")
