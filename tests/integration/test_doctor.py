"""`rarft doctor` and `rarft cancel` against a fake Kubernetes API server."""

import re

import pytest

from helpers.cluster_server import Cluster
from rarft.cluster import client as cluster_api
from rarft.cluster import doctor_local
from rarft.cluster.job_config import Job
from rarft.cluster.pytorchjob import pytorchjob

JOB = pytorchjob(Job(name="first", image="i", arguments=[]))


@pytest.fixture
def cluster(monkeypatch, tmp_path):
    served = Cluster()
    monkeypatch.setenv("KUBECONFIG", str(served.kubeconfig(tmp_path / "kubeconfig")))
    # The client reads it once, at import.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))
    monkeypatch.setattr(cluster_api, "_INITIAL_DELAY_S", 0.05)
    monkeypatch.setattr(doctor_local, "_MIN_DISK", 0)
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


def test_doctor_cluster(main, cluster):
    image = "registry/train:1"
    cluster.jobs["first"] = JOB
    cluster.nodes = [
        {"metadata": {"name": "a"}, "status": {"images": [{"names": [image], "sizeBytes": 1}]}},
        {"metadata": {"name": "b"}, "status": {"images": []}},
    ]
    code, output, errors = main("doctor", "--cluster", "--image", image, "--queue", "gpus")
    assert code == 0, errors
    table = rows(output)
    assert "in lab all that the launcher needs" in table["permissions"]
    assert table["training operator"].endswith("installed")
    assert "3 pending, 1 admitted" in table["queue"]
    assert "on 1 of 2 nodes" in table["image"]


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
    assert re.search(r"queue +failed +get queue: 404 not found", output)


def test_doctor_forbidden_check_is_skipped(main, cluster):
    cluster.forbidden = {("list", "resourcequotas"), ("list", "nodes")}
    code, output, errors = main("doctor", "--cluster", "--image", "i")
    assert code == 0, errors
    assert re.search(r"quota +skipped +get quotas: .*cannot list", output)
    assert re.search(r"image +skipped", output)


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
