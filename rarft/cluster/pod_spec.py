"""Pod of a training job; conforms to Kubernetes' restricted Pod Security Standard."""

from collections.abc import Mapping
from typing import Any

from kubernetes.utils.quantity import parse_quantity

from rarft.checkpoint.disk_space import VOLUME_LIMIT_ENV
from rarft.cluster.job_config import Job
from rarft.cluster.secrets import HUB_KEYS, STORE_KEYS, TRACKING_KEYS

USER = 10001  # as in the image
_GRACE_PERIOD_S = 1200  # must cover a training step, a save and its upload
_CLEANUP_S = 60  # part of the grace period that remains after the ranks have ended
_SHARED_MEMORY = "64Gi"  # ranks exchange tensors through it, and the default is 64 MB
BACKOFF_LIMIT = 10  # restarts of a node's pods by the operator, on average
TTL_S = 7 * 24 * 3600  # after which a finished job is deleted
ACTIVE_DEADLINE_S = 15 * 24 * 3600  # after which a job is stopped
COMMAND = ("torchrun", "-m", "rarft.cli", "train")
LABEL = "app.kubernetes.io/name"
JOB_LABEL = "rarft.io/job"


def job_environment(job: Job) -> list[dict[str, Any]]:
    """Return the environment variables that differ between jobs: the limit of /scratch, and secrets."""
    secrets = {job.store_secret: STORE_KEYS, job.hub_secret: HUB_KEYS, job.tracking_secret: TRACKING_KEYS}
    return [
        {"name": VOLUME_LIMIT_ENV, "value": f"/scratch={parse_quantity(job.disk):.0f}"},
        *(
            {"name": key, "valueFrom": {"secretKeyRef": {"name": name, "key": key, "optional": True}}}
            for name, keys in secrets.items()
            for key in keys
        ),
    ]


def _environment(extra: Mapping[str, str]) -> list[dict[str, Any]]:
    values = {
        "NCCL_DEBUG": "INFO",
        # Fail as soon as a peer is lost instead of waiting for the timeout.
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        # Flight recorder: each rank's last collectives, written to a file per rank when one of them times out.
        "TORCH_FR_BUFFER_SIZE": "2000",
        "TORCH_NCCL_DUMP_ON_TIMEOUT": "1",
        "TORCH_FR_DUMP_TEMP_FILE": "/scratch/nccl_trace_rank_",
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(_GRACE_PERIOD_S - _CLEANUP_S),
        # Restarted ranks must not connect to the previous start's store.
        "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        "HF_HOME": "/scratch/huggingface",
        "XDG_CACHE_HOME": "/scratch/cache",
        "TMPDIR": "/scratch/tmp",
        "SHARED_MEMORY": "/dev/shm",
        **extra,
    }
    return [{"name": name, "value": value} for name, value in values.items()]


def resources(job: Job) -> dict[str, Any]:
    """Return the resources of a job's container."""
    amounts: dict[str, Any] = {"cpu": job.cpu, "memory": job.memory}
    if job.gpus:
        amounts[job.accelerator] = str(job.gpus)
    # The request places the pod on a node with enough disk. A limit would also count the container's logs.
    return {"requests": {**amounts, "ephemeral-storage": job.disk}, "limits": amounts}


def placement(job: Job) -> dict[str, Any]:
    """Return the fields of a pod's spec that select nodes for a job."""
    fields: dict[str, Any] = {}
    if job.node_selector:
        fields["nodeSelector"] = dict(job.node_selector)
    if job.tolerations:
        fields["tolerations"] = [dict(toleration) for toleration in job.tolerations]
    if job.affinity:
        fields["affinity"] = {"nodeAffinity": dict(job.affinity)}
    return fields


def _container(name: str, image: str, extra: Mapping[str, str]) -> dict[str, Any]:
    mounts = {"work": "/scratch", "tmp": "/tmp", "shm": "/dev/shm"}
    return {
        "name": name,
        "image": image,
        "workingDir": "/scratch",
        # Files of killed ranks stay in shared memory across restarts of the container.
        "command": ["sh", "-c", 'rm -rf "${SHARED_MEMORY:?}"/* && mkdir -p "$TMPDIR" && exec "$@"', "sh", *COMMAND],
        "env": _environment(extra),
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


def shared_template(container: str, image: str, job_label: str, **environment: str) -> dict[str, Any]:
    """Return what the pods of all jobs have in common.

    Args:
        container: Name of the container.
        image: Its image.
        job_label: Label whose value is different for each job.
        environment: Additional environment variables.
    """
    # A service mesh's proxy would intercept ranks and keep finished pods alive.
    no_mesh = {"sidecar.istio.io/inject": "false"}
    metadata = {"labels": {LABEL: "rarft", **no_mesh}, "annotations": no_mesh}
    spec: dict[str, Any] = {
        "containers": [_container(container, image, environment)],
        "terminationGracePeriodSeconds": _GRACE_PERIOD_S,
        "automountServiceAccountToken": False,  # training makes no API calls
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            {"name": "work", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": _SHARED_MEMORY}},
        ],
        "topologySpreadConstraints": [
            {
                "maxSkew": 1,
                "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway",
                "labelSelector": {"matchLabels": {LABEL: "rarft"}},
                "matchLabelKeys": [job_label],
            }
        ],
    }
    return {"metadata": metadata, "spec": spec}


def pod_template(job: Job, container: str, **environment: str) -> dict[str, Any]:
    """Return the template of a job's pods, for a container with the name that the operator requires."""
    template = shared_template(container, job.image, JOB_LABEL, **environment)
    template["metadata"]["labels"] |= labels(job)
    (main,) = template["spec"]["containers"]
    main["args"] = list(job.arguments)
    main["env"] += job_environment(job)
    main["resources"] = resources(job)
    work = next(volume for volume in template["spec"]["volumes"] if volume["name"] == "work")
    work["emptyDir"]["sizeLimit"] = job.disk
    template["spec"] |= placement(job)
    if job.priority_class:
        template["spec"]["priorityClassName"] = job.priority_class
    return template
