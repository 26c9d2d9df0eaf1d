"""The component that trains with a job on a cluster: uploaded inputs, the job, outputs."""

import json
import threading
import time
from types import SimpleNamespace

import boto3
import pytest

from components.launch_job.component import launch_job
from helpers.cluster_server import Cluster, merge
from helpers.s3_servers import buckets
from rarft.cluster import job_monitor, train
from rarft.cluster.job_config import Job
from rarft.cluster.kinds import JOB_KINDS
from rarft.storage.location import S3Folder

NODES = {
    "image": "i", "nodes": 2, "accelerator": "nvidia.com/gpu", "processes": 0, "cpu": "4", "memory": "16Gi",
    "disk": "640Gi", "node_selector": {}, "tolerations": [], "affinity": {}, "queue": "", "priority_class": "",
    "store_secret": "store", "hub_secret": "hub", "tracking_secret": "wandb",
}  # fmt: skip
FINAL = "checkpoints/seven/checkpoint-final"


@pytest.fixture(params=list(JOB_KINDS))
def cluster(monkeypatch, tmp_path, request):
    served = Cluster(request.param)
    monkeypatch.setattr(train, "connect", served.api)
    monkeypatch.setattr(train, "current_namespace", lambda: "lab")
    monkeypatch.setattr(job_monitor, "_POLL_INTERVAL_S", 0.2)
    monkeypatch.setattr(job_monitor, "_MIN_POLL_INTERVAL_S", 0.1)
    with buckets("moto", tmp_path, "runs"):
        boto3.client("s3").put_object(Bucket="runs", Key=f"a/{FINAL}/checkpoint.json", Body=b'{"files": {}}')
        yield served
    served.close()


def start(cluster, validated):
    def succeeds():
        while "run-1" not in cluster.jobs:
            time.sleep(0.02)
        time.sleep(0.3)
        cluster.set("run-1", "Succeeded")

    threading.Thread(target=succeeds, daemon=True).start()
    training = "preset: 8xA100-80\nexp_name: seven\n"
    return launch(cluster, validated, training, "s3://runs/a")


def launch(cluster, data, training, out):
    """Call the component like Kubeflow's executor."""
    folder = SimpleNamespace(path=str(data))
    step = {"data": folder, "embeddings": folder, "encoder": "", "videos_fingerprint": "v1", "accelerators": "8"}
    step |= {"kind": cluster.kind.name, "job": "run-1"}
    return launch_job.python_func(**step, **NODES, training=training, output_uri=out)


def arguments(cluster):
    """Return the flags of the job's containers."""
    spec = cluster.jobs["run-1"]["spec"]
    if cluster.kind.name == "trainjob":
        return spec["trainer"]["args"]
    (container,) = spec["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    return container["args"]


def test_launch_uploads_runs_and_returns_checkpoint(cluster, validated):
    checkpoint, base, cache_key = start(cluster, validated)
    assert checkpoint == f"s3://runs/a/{FINAL}"
    assert base == "Qwen/Qwen2.5-VL-7B-Instruct"
    assert len(cache_key) == 64
    uploaded = S3Folder("s3://runs/a/inputs/run-1/train_data_path").read("riq.jsonl")
    assert uploaded == (validated / "riq.jsonl").read_bytes()
    flags = dict(argument.split("=", 1) for argument in arguments(cluster))
    assert flags["--train_data_path"] == "s3://runs/a/inputs/run-1/train_data_path"
    assert (flags["--out"], flags["--work_dir"], flags["--data_version"]) == ("s3://runs/a", "/scratch", "v1")
    assert (flags["--preset"], flags["--resume_from_checkpoint"]) == ("8xA100-80", "auto")


def test_launch_adopts_job_without_upload(cluster, validated):
    start(cluster, validated)
    S3Folder("s3://runs/a/inputs/run-1/train_data_path").delete("riq.jsonl")
    start(cluster, validated)  # as when Kubeflow retries the step
    assert "train_data_path/riq.jsonl" not in S3Folder("s3://runs/a/inputs/run-1").sizes()
    assert cluster.created == 1


def test_launch_rejects_local_output(cluster, validated, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        launch(cluster, validated, "preset: tiny", str(tmp_path))
    assert ended.value.code == 2
    assert "the nodes share no disk; give an s3:// URI" in capsys.readouterr().err
    assert json.dumps(cluster.jobs) == "{}"


def test_launch_job_equals_rendered_manifest(cluster, validated):
    start(cluster, validated)
    job = Job(name="run-1", arguments=arguments(cluster), gpus=8, **NODES)
    manifest = cluster.kind.manifest(job)
    merge(manifest, cluster.kind.suspend(False))
    assert cluster.jobs["run-1"]["spec"] == manifest["spec"]
