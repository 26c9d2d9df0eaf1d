"""Pod of a training job; conforms to Kubernetes' restricted Pod Security Standard."""

from collections.abc import Mapping
from typing import Any

from rarft.cluster.job_config import Job
from rarft.cluster.secrets import HUB_KEYS, STORE_KEYS, TRACKING_KEYS

USER = 10001  # as in the image
CONTAINER = "pytorch"  # required by the training operator
# Any free port will do: the operator's service for the master is headless.
RENDEZVOUS_PORT = 29400
_CLEANUP_S = 60  # part of the grace period that remains after the ranks have ended
COMMAND = ("torchrun", "-m", "rarft.cli", "train")
LABEL = "app.kubernetes.io/name"
JOB_LABEL = "rarft.io/job"


def secret_environment(job: Job) -> list[dict[str, Any]]:
    """Return the variables that refer to secrets; each key is optional."""
    secrets = {job.store_secret: STORE_KEYS, job.hub_secret: HUB_KEYS, job.tracking_secret: TRACKING_KEYS}
    return [
        {"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key, "optional": True}}}
        for name, keys in secrets.items()
        for key in keys
    ]


def environment(job: Job, extra: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
    """Return the variables of a container; those of `job.environment` take precedence."""
    values = {
        "NCCL_DEBUG": "INFO",
        # Fail as soon as a peer is lost instead of waiting for the timeout.
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "TORCH_NCCL_TRACE_BUFFER_SIZE": "2000",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(job.grace_period_s - _CLEANUP_S),
        # Restarted ranks must not connect to the previous start's store.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "HF_HOME": "/scratch/huggingface",
        "XDG_CACHE_HOME": "/scratch/cache",
        "TMPDIR": "/scratch/tmp",
        "SHARED_MEMORY": "/dev/shm",
        **(extra or {}),
        **job.environment,
    }
    return [*({"name": name, "value": value} for name, value in values.items()), *secret_environment(job)]


def _resources(job: Job) -> dict[str, Any]:
    resources: dict[str, Any] = {"cpu": job.cpu, "memory": job.memory}
    if job.gpus:
        resources[job.accelerator] = str(job.gpus)
    return {"requests": resources, "limits": resources}


def _volumes(job: Job) -> list[dict[str, Any]]:
    volumes: list[dict[str, Any]] = [
        {"name": "work", "emptyDir": {"sizeLimit": job.work_dir_size}},
        {"name": "tmp", "emptyDir": {}},
        # Ranks exchange tensors through it, and the default is 64 MB.
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": job.shared_memory}},
    ]
    if job.pvc_name:
        volumes.append({"name": "data", "persistentVolumeClaim": {"claimName": job.pvc_name}})
    return volumes


def container(job: Job, name: str, extra: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Return the training container.

    Args:
        job: Training job.
        name: Name that the operator requires.
        extra: Additional environment variables.
    """
    mounts = {"work": "/scratch", "tmp": "/tmp", "shm": "/dev/shm", **({"data": "/data"} if job.pvc_name else {})}
    return {
        "name": name,
        "image": job.image,
        "workingDir": "/scratch",
        # Files of killed ranks stay in shared memory across restarts of the container.
        "command": ["sh", "-c", 'rm -rf "${SHARED_MEMORY:?}"/* && mkdir -p "$TMPDIR" && exec "$@"', "sh", *COMMAND],
        "args": list(job.arguments),
        "env": environment(job, extra),
        "resources": _resources(job),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # Put the last lines of a failure into the pod's status, where the launcher reads them.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [{"name": volume, "mountPath": path} for volume, path in mounts.items()],
    }


def labels(job: Job) -> dict[str, str]:
    """Return the labels of the job and of its pods."""
    return {LABEL: "rarft", JOB_LABEL: job.name}


def pod_metadata(job: Job) -> dict[str, Any]:
    """Return the metadata of the pods. A service mesh's proxy would intercept ranks and keep finished pods alive."""
    no_mesh = {"sidecar.istio.io/inject": "false"}
    return {"labels": {**labels(job), **no_mesh}, "annotations": no_mesh}


def pod_spec(job: Job, training_container: dict[str, Any]) -> dict[str, Any]:
    """Return the pod spec around the training container."""
    spec: dict[str, Any] = {
        "containers": [training_container],
        "terminationGracePeriodSeconds": job.grace_period_s,
        "automountServiceAccountToken": False,  # training makes no API calls
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
