"""Manifests for Kubeflow Trainer (trainer.kubeflow.org/v1alpha1), the training operator's successor.

A TrainJob refers to a TrainingRuntime, which defines the pods. Both are rendered, so that the pods are the same as
those of the PyTorchJob.
"""

from typing import Any

from rarft.cluster.job_config import Job
from rarft.cluster.pod_spec import BACKOFF_LIMIT, TTL_S, labels, pod_template
from rarft.cluster.pytorchjob import QUEUE_LABEL

API = "trainer.kubeflow.org/v1alpha1"
_NODE = "node"  # name that the trainer requires of the replicated job and of its container


def training_runtime(job: Job) -> dict[str, Any]:
    """Return the TrainingRuntime. The trainer sets the rendezvous as PET_ variables."""
    pod = pod_template(job, _NODE)
    pod["spec"]["restartPolicy"] = "OnFailure"
    replicated = {
        "name": _NODE,
        "template": {
            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
            "spec": {"backoffLimit": BACKOFF_LIMIT, "template": pod},
        },
    }
    return {
        "apiVersion": API,
        "kind": "TrainingRuntime",
        "metadata": {"name": job.name, "labels": {**labels(job), "trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": job.nodes, "torch": {}},
            "template": {
                "spec": {
                    "replicatedJobs": [replicated],
                    "failurePolicy": {"maxRestarts": BACKOFF_LIMIT},
                    "ttlSecondsAfterFinished": TTL_S,
                }
            },
        },
    }


def trainjob(job: Job) -> dict[str, Any]:
    """Return the TrainJob, which refers to the runtime."""
    queue = {QUEUE_LABEL: job.queue} if job.queue else {}
    spec: dict[str, Any] = {
        "runtimeRef": {"apiGroup": API.split("/")[0], "kind": "TrainingRuntime", "name": job.name},
        "trainer": {"numNodes": job.nodes, "numProcPerNode": job.processes_per_node},
    }
    if job.queue:
        spec["suspend"] = True  # until Kueue admits it
    return {
        "apiVersion": API,
        "kind": "TrainJob",
        "metadata": {"name": job.name, "labels": {**labels(job), **queue}},
        "spec": spec,
    }
