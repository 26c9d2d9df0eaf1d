"""The pod of a training job: what Kubernetes' restricted Pod Security Standard accepts, and nothing more."""

from collections.abc import Mapping
from typing import Any

from rarft.cluster.job_config import Job
from rarft.cluster.secrets import HUB_KEYS, STORE_KEYS, TRACKING_KEYS

USER = 10001  # of the image
CONTAINER = "pytorch"  # that the training operator looks for
# Torch's agents meet here; the service that the operator makes for the master has no address of its own, and any port.
RENDEZVOUS_PORT = 29400
_SPARE_S = 60  # of the grace period, for what is left to do once the ranks have ended
COMMAND = ("torchrun", "-m", "rarft.cli", "train")
LABEL = "app.kubernetes.io/name"
JOB_LABEL = "rarft.io/job"


def secret_environment(job: Job) -> list[dict[str, Any]]:
    """Variables that come from secrets, by reference; each may be missing."""
    secrets = {job.store_secret: STORE_KEYS, job.hub_secret: HUB_KEYS, job.tracking_secret: TRACKING_KEYS}
    return [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key, "optional": True}}}
        for name, keys in secrets.items()
        for key in keys
    ]


def environment(job: Job, more: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """The containers' variables; a job's own win."""
    values = {
        "NCCL_DEBUG": "INFO",
        # NCCL ends its waiting when a peer is gone, in place of hanging until its time-out.
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(job.grace_s - _SPARE_S),
        # A restart of the ranks must not meet the store of the start before.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "HF_HOME": "/scratch/huggingface",
        "XDG_CACHE_HOME": "/scratch/cache",
        "TMPDIR": "/scratch/tmp",
        "SHARED_MEMORY": "/dev/shm",
        **(more or {}),
        **job.environment,
    }
    return [*({"name": name, "value": value} for name, value in values.items()), *secret_environment(job)]


def _resources(job: Job) -> dict[str, Any]:
    amounts: dict[str, Any] = {"cpu": job.cpu, "memory": job.memory}
    if job.gpus:
        amounts[job.accelerator] = str(job.gpus)
    return {"requests": amounts, "limits": amounts}


def _volumes(job: Job) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "work", "emptyDir": {"sizeLimit": job.scratch}},
        {"name": "tmp", "emptyDir": {}},
        # Ranks hand each other tensors there, and a container has 64 MB of it.
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": job.shared_memory}},
    ]
    if job.claim:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": job.claim}})
    return volumes


def container(job: Job, name: str, more: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The training container.

    Args:
        job: the job.
        name: that the operator looks for.
        more: further variables.
    """
    mounts = {"work": "/scratch", "tmp": "/tmp", "shm": "/dev/shm", **({"data": "/data"} if job.claim else {})}
    return {
        "name": name,
        "image": job.image,
        "workingDir": "/scratch",
        # What ranks that were killed left in shared memory is there until the pod goes.
        "command": ["sh", "-c", 'rm -rf "${SHARED_MEMORY:?}"/* && mkdir -p "$TMPDIR" && exec "$@"', "sh", *COMMAND],
        "args": list(job.arguments),
        "env": environment(job, more),
        "resources": _resources(job),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # The last line of a failure stands in the pod's status, for whoever asks there.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in mounts.items()],
    }


def labels(job: Job) -> dict[str, str]:
    """Of the job and of its pods."""
    return {LABEL: "rarft", JOB_LABEL: job.name}


def pod_metadata(job: Job) -> dict[str, Any]:
    """Of the pods. A mesh's proxy would stand between the ranks, and keep a pod alive that is done."""
    outside = {"sidecar.istio.io/inject": "false"}
    return {"labels": {**labels(job), **outside}, "annotations": outside}


def pod_spec(job: Job, container_: dict[str, Any]) -> dict[str, Any]:
    """The pod around the training container."""
    spec: dict[str, Any] = {
        "containers": [container_],
        "terminationGracePeriodSeconds": job.grace_s,
        "automountServiceAccountToken": False,  # training asks the cluster nothing
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": _volumes(job),
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": job.topology_key,
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": labels(job)},
            }
        ],
    }
    if job.node_selector:
        spec["nodeSelector"] = dict(job.node_selector)
    if job.tolerations:
        spec["tolerations"] = [dict(toleration) for toleration in job.tolerations]
    if job.affinity:
        spec["affinity"] = {"nodeAffinity": dict(job.affinity)}
    if job.priority_class:
        spec["priorityClassName"] = job.priority_class
    return spec
