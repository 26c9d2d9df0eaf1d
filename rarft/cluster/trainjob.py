"""The same job for Kubeflow Trainer (trainer.kubeflow.org/v1alpha1), the training operator's successor.

A TrainJob is short and names a runtime; the runtime holds the pods. Both are rendered, so that the pods are ours.
"""

from typing import Any

from rarft.cluster.job_config import Job
from rarft.cluster.pod_spec import container, labels, pod_metadata, pod_spec
from rarft.cluster.pytorchjob import QUEUE_LABEL

API = "trainer.kubeflow.org/v1alpha1"
_NODE = "node"  # of the job and of the container that the trainer looks for


def training_runtime(job: Job) -> dict[str, Any]:
    """The runtime: the pod of each node, and torch's way to meet, which the trainer sets as PET_ variables."""
    pod = pod_spec(job, container(job, _NODE))
    pod["restartPolicy"] = "OnFailure"
    replicated = {
        "name": _NODE,
        "template": {
            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
            "spec": {
                "backoffLimit": job.backoff,
                "template": {"metadata": pod_metadata(job), "spec": pod},
            },
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
                    "failurePolicy": {"maxRestarts": job.backoff},
                    "ttlSecondsAfterFinished": job.ttl_s,
                }
            },
        },
    }


def trainjob(job: Job) -> dict[str, Any]:
    """The job that runs it."""
    own = {**labels(job), **({QUEUE_LABEL: job.queue} if job.queue else {})}
    spec: dict[str, Any] = {
        "runtimeRef": {"apiGroup": API.split("/")[0], "kind": "TrainingRuntime", "name": job.name},
        "trainer": {"numNodes": job.nodes, "numProcPerNode": job.processes_per_node},
    }
    if job.queue:
        spec["suspend"] = True  # until Kueue has room for it
    return {"apiVersion": API, "kind": "TrainJob", "metadata": {"name": job.name, "labels": own}, "spec": spec}
