"""PyTorchJob manifest for Kubeflow's training operator (kubeflow.org/v1)."""

from typing import Any

from rarft.cluster.job_config import Job
from rarft.cluster.job_kind import JobKind
from rarft.cluster.kueue import QUEUE_LABEL
from rarft.cluster.pod_spec import ACTIVE_DEADLINE_S, BACKOFF_LIMIT, JOB_LABEL, TTL_S, labels, pod_template

_GROUP, _VERSION = "kubeflow.org", "v1"
_CONTAINER = "pytorch"  # required by the operator

# Any free port will do: the operator's service for the master is headless.
RENDEZVOUS_PORT = 29400
_MAX_RESTARTS = 3  # of the ranks within their pods, by torchrun


def _replica(job: Job, role: str, replicas: int) -> dict[str, Any]:
    rendezvous = {
        # With c10d, the agents of all nodes restart all ranks when one dies.
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": f"{job.name}-master-0:{RENDEZVOUS_PORT}",
        # Wait up to half an hour for the slowest pod to be scheduled and to pull its image.
        "PET_RDZV_CONF": f"is_host={int(role == 'Master')},join_timeout=1800,read_timeout=300",
        "PET_RDZV_ID": job.name,
        "PET_MAX_RESTARTS": str(_MAX_RESTARTS),
    }
    template = pod_template(job, _CONTAINER, **rendezvous)
    return {"replicas": replicas, "restartPolicy": "OnFailure", "template": template}


def pytorchjob(job: Job) -> dict[str, Any]:
    """Return the manifest. The operator adds PET_NNODES, PET_NPROC_PER_NODE and PET_NODE_RANK for torchrun."""
    metadata: dict[str, Any] = {"name": job.name, "labels": labels(job)}
    if job.queue:
        metadata["labels"][QUEUE_LABEL] = job.queue
    replicas = {"Master": _replica(job, "Master", 1)}
    if job.nodes > 1:
        replicas["Worker"] = _replica(job, "Worker", job.nodes - 1)
    policy: dict[str, Any] = {
        "cleanPodPolicy": "Running",
        # The limit counts the restarts of all pods, and a lost pod restarts the others.
        "backoffLimit": BACKOFF_LIMIT * job.nodes,
        "activeDeadlineSeconds": ACTIVE_DEADLINE_S,
        "ttlSecondsAfterFinished": TTL_S,
    }
    if job.queue:
        policy["suspend"] = True  # until Kueue admits it
    return {
        "apiVersion": f"{_GROUP}/{_VERSION}",
        "kind": "PyTorchJob",
        "metadata": metadata,
        "spec": {
            "nprocPerNode": str(job.processes_per_node),
            "runPolicy": policy,
            "pytorchReplicaSpecs": replicas,
        },
    }


PYTORCHJOB = JobKind(
    kind="PyTorchJob",
    group=_GROUP,
    version=_VERSION,
    plural="pytorchjobs",
    operator="Kubeflow's Training Operator 1.9",
    container=_CONTAINER,
    pod_label=JOB_LABEL,
    succeeded="Succeeded",
    suspend_path=("runPolicy",),
    children=(),
    manifest=pytorchjob,
)
