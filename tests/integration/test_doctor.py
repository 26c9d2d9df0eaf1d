"""`rarft doctor` and `rarft cancel`, against a server that speaks Kubernetes' API."""

import re

import pytest

from helpers.cluster_server import Cluster
from rarft.cluster import client as cluster_api
from rarft.cluster import doctor
from rarft.cluster.job_config import Job
from rarft.cluster.manifests import role
from rarft.cluster.pytorchjob import pytorchjob

JOB = pytorchjob(Job(name="first", image="i", arguments=[]))


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    served = Cluster()
    monkeypatch.setenv("KUBECONFIG", str(served.kubeconfig(tmp_path / "kubeconfig")))
    # It is read once, when the client is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(cluster_api, "_FIRST_WAIT", 0.05)
    monkeypatch.setattr(doctor, "_LEAST_DISK", 0)
    yield served
    served.close()


def rows(output):
    return {line.split("  ")[0]: line for line in output.splitlines()}


def test_what_is_well_is_said_and_what_was_not_asked_too(main, cluster, sample_set, tmp_path):
    code, output, errors = main("doctor", "--data", sample_set / "train.json", "--out", tmp_path / "out")
    assert code == 0, errors
    table = rows(output)
    assert list(table) == ["versions", "GPUs", "disk", "data", "out", "cluster"]
    assert "not asked" in table["cluster"]
    assert f"{(sample_set / 'train.json').stat().st_size} bytes" in table["data"]


def test_everything_that_would_fail_is_told_at_once(main, cluster, tmp_path):
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


def test_the_cluster_is_looked_at(main, cluster):
    image = "registry/train:1"
    cluster.jobs["first"] = JOB
    cluster.nodes = [
        {"metadata": {"name": "a"}, "status": {"images": [{"names": [image], "sizeBytes": 1}]}},
        {"metadata": {"name": "b"}, "status": {"images": []}},
    ]
    code, output, errors = main("doctor", "--cluster", "--image", image, "--queue", "gpus")
    assert code == 0, errors
    table = rows(output)
    assert "in lab all that the launcher needs" in table["rights"]
    assert table["training operator"].endswith("installed")
    assert "3 wait, 1 run" in table["queue"]
    assert "on 1 of 2 nodes already" in table["image"]


def test_missing_rights_and_a_full_quota_are_told(main, cluster):
    cluster.denied = {("create", "pytorchjobs"), ("get", "pods/log")}
    full = {"requests.nvidia.com/gpu": "16"}
    cluster.quotas = [{"metadata": {"name": "q"}, "status": {"hard": full, "used": full}}]
    code, output, errors = main("doctor", "--cluster")
    assert code == 1
    assert "failed checks: rights, quota" in errors
    assert "may not create pytorchjobs, get pods/log; kubectl apply -k k8s/base" in output
    assert "used up: requests.nvidia.com/gpu 16 of 16" in output


def test_a_queue_that_is_not_there_is_told_in_a_line(main, cluster):
    code, output, _ = main("doctor", "--cluster", "--queue", "nothing")
    assert code == 1
    assert re.search(r"queue +fails +looking at the queue: 404 no such thing", output)


def test_what_this_account_may_not_look_at_is_not_called_a_failure(main, cluster):
    cluster.denied = {("list", "resourcequotas"), ("list", "nodes")}
    code, output, errors = main("doctor", "--cluster", "--image", "i")
    assert code == 0, errors
    assert re.search(r"quota +not asked +looking at quotas: .*cannot list", output)
    assert re.search(r"image +not asked", output)


def test_no_cluster_is_told(main, cluster, monkeypatch, tmp_path):
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "nothing"))
    code, output, _ = main("doctor", "--cluster")
    assert code == 1
    assert "no cluster is known here" in output


def test_it_asks_for_the_rights_that_the_role_grants():
    granted = {
        (verb, group, *[*resource.split("/"), ""][:2])
        for rule in role()["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert set(doctor.RIGHTS) == granted


def test_a_job_is_cancelled(main, cluster):
    cluster.jobs["first"] = JOB
    code, output, _ = main("cancel", "first")
    assert code == 0
    assert "job first in namespace lab: deleted" in output
    assert cluster.jobs == {}


def test_a_job_that_is_not_there_is_told_with_those_that_are(main, cluster):
    cluster.jobs["first"] = JOB
    code, _, errors = main("cancel", "second")
    assert code == 2
    assert errors.strip() == "rarft cancel: no job second in namespace lab; there are: first"
    assert set(cluster.jobs) == {"first"}
