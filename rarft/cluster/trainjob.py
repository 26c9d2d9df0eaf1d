"""Manifests for Kubeflow Trainer (trainer.kubeflow.org/v1alpha1), the training operator's successor.

A TrainJob refers to a TrainingRuntime, which defines what the pods of all jobs have in common. Both together give the
pods of the PyTorchJob.
"""

from typing import Any

from rarft import __version__
from rarft.cluster.job_config import Job
from rarft.cluster.job_kind import JobKind
from rarft.cluster.kueue import QUEUE_LABEL
from rarft.cluster.pod_spec import (
    ACTIVE_DEADLINE_S,
    BACKOFF_LIMIT,
    LABEL,
    job_environment,
    labels,
    placement,
    resources,
    shared_template,
)
from rarft.errors import InputError

_GROUP, _VERSION = "trainer.kubeflow.org", "v1alpha1"
_API = f"{_GROUP}/{_VERSION}"
RUNTIME = "rarft"  # name of the TrainingRuntime
_NODE = "node"  # name that the trainer requires of the replicated job and of its container
_POD_LABEL = "jobset.sigs.k8s.io/jobset-name"  # the trainer names the JobSet after the TrainJob


def training_runtime() -> dict[str, Any]:
    """Return the TrainingRuntime. The trainer sets the rendezvous as PET_ variables.

    It has no `ttlSecondsAfterFinished`, because Trainer 2.3 runs a failed job again whose JobSet has been deleted
    (kubeflow/trainer#3737).
    """
    pod = shared_template(_NODE, f"rarft-train:{__version__}", _POD_LABEL)
    pod["spec"]["restartPolicy"] = "OnFailure"
    replicated = {
        "name": _NODE,
        "template": {
            "metadata": {"labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}},
            "spec": {"backoffLimit": BACKOFF_LIMIT, "template": pod},
        },
    }
    return {
        "apiVersion": _API,
        "kind": "TrainingRuntime",
        "metadata": {"name": RUNTIME, "labels": {LABEL: "rarft", "trainer.kubeflow.org/framework": "torch"}},
        "spec": {
            "mlPolicy": {"numNodes": 1, "torch": {}},
            "template": {"spec": {"replicatedJobs": [replicated], "failurePolicy": {"maxRestarts": BACKOFF_LIMIT}}},
        },
    }


def _patch(job: Job) -> dict[str, Any]:
    """Return the patch of the runtime's pods that sets a job's labels and nodes."""
    pod: dict[str, Any] = {"metadata": {"labels": labels(job)}}
    if nodes := placement(job):
        pod["spec"] = nodes
    replicated = {"name": _NODE, "template": {"spec": {"template": pod}}}
    return {
        "manager": "rarft.io/launcher",
        "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [replicated]}}},
    }


def trainjob(job: Job) -> dict[str, Any]:
    """Return the TrainJob, which refers to the runtime.

    Raises:
        InputError: The job has a priority class, which only a runtime can set.
    """
    if job.priority_class:
        raise InputError(
            f"priority_class {job.priority_class}: a TrainJob cannot set it; set priorityClassName in the "
            f"TrainingRuntime {RUNTIME}"
        )
    queue = {QUEUE_LABEL: job.queue} if job.queue else {}
    spec: dict[str, Any] = {
        "runtimeRef": {"apiGroup": _GROUP, "kind": "TrainingRuntime", "name": RUNTIME},
        "trainer": {
            "image": job.image,
            "args": list(job.arguments),
            "env": job_environment(job),
            "numNodes": job.nodes,
            "numProcPerNode": job.processes_per_node,
            "resourcesPerNode": resources(job),
        },
        "runtimePatches": [_patch(job)],
        "activeDeadlineSeconds": ACTIVE_DEADLINE_S,
    }
    if job.queue:
        spec["suspend"] = True  # until Kueue admits it
    return {
        "apiVersion": _API,
        "kind": "TrainJob",
        "metadata": {"name": job.name, "labels": {**labels(job), **queue}},
        "spec": spec,
    }


TRAINJOB = JobKind(
    kind="TrainJob",
    group=_GROUP,
    version=_VERSION,
    plural="trainjobs",
    operator="Kubeflow Trainer 2",
    container=_NODE,
    pod_label=_POD_LABEL,
    succeeded="Complete",
    suspend_path=(),
    children=(("JobSet", "{}"), ("Job", f"{{}}-{_NODE}-0")),
    manifest=trainjob,
)
