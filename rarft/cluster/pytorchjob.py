"""The job for Kubeflow's training operator (kubeflow.org/v1)."""

from typing import Any

from rarft.cluster.job_config import Job
from rarft.cluster.pod_spec import CONTAINER, RENDEZVOUS_PORT, container, labels, pod_metadata, pod_spec

GROUP, VERSION, PLURAL = "kubeflow.org", "v1", "pytorchjobs"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def _replica(job: Job, role: str, number: int) -> dict[str, Any]:
    rendezvous = {
        # Agents that meet by c10d start all ranks again when one dies, also on other machines.
        "PET_RDZV_BACKEND": "c10d",
        "PET_RDZV_ENDPOINT": f"{job.name}-master-0:{RENDEZVOUS_PORT}",
        # Half an hour for the slowest pod to be scheduled and to pull its image.
        "PET_RDZV_CONF": f"is_host={int(role == 'Master')},join_timeout=1800,read_timeout=300",
        "PET_RDZV_ID": job.name,
        "PET_MAX_RESTARTS": str(job.restarts),
    }
    spec = pod_spec(job, container(job, CONTAINER, rendezvous))
    template = {"metadata": pod_metadata(job), "spec": spec}
    return {"replicas": number, "restartPolicy": "OnFailure", "template": template}


def pytorchjob(job: Job) -> dict[str, Any]:
    """The manifest. The operator adds PET_NNODES, PET_NPROC_PER_NODE and PET_NODE_RANK, which torchrun reads."""
    metadata: dict[str, Any] = {"name": job.name, "labels": labels(job)}
    if job.queue:
        metadata["labels"][QUEUE_LABEL] = job.queue
    replicas = {"Master": _replica(job, "Master", 1)}
    if job.nodes > 1:
        replicas["Worker"] = _replica(job, "Worker", job.nodes - 1)
    policy: dict[str, Any] = {
        "cleanPodPolicy": "Running",
        # Restarts of all pods together count, and one that is lost restarts the others, too.
        "backoffLimit": job.backoff * job.nodes,
        "activeDeadlineSeconds": job.deadline_s,
        "ttlSecondsAfterFinished": job.ttl_s,
    }
    if job.queue:
        policy["suspend"] = True  # until Kueue has room for it
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "PyTorchJob",
        "metadata": metadata,
        "spec": {
            "nprocPerNode": str(job.processes_per_node),
            "runPolicy": policy,
            "pytorchReplicaSpecs": replicas,
        },
    }
