"""Configuration of a training job on a cluster."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rarft.errors import InputError

# Names of pods and services derive from the job's: with `-worker-99` they must fit into 63 characters.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
_MINIMUM = {"nodes": 1, "gpus": 0, "processes": 0, "max_restarts": 0, "backoff_limit": 0, "grace_period_s": 120}


@dataclass(frozen=True)
class Job:
    """A training job.

    Args:
        name: Name of the job; the names of its pods derive from it.
        image: Image of the containers.
        arguments: Flags of `rarft train`.
        nodes: Number of nodes.
        gpus: GPUs per node; 0 for none.
        processes: Processes per node; 0 for one per GPU, or one without GPUs.
        accelerator: Resource name of the GPUs.
        cpu: CPUs per pod.
        memory: Memory per pod, including shared memory.
        shared_memory: Size of /dev/shm.
        work_dir_size: Size of the disk for downloads and for checkpoints that wait for their upload.
        store_secret: Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION.
        hub_secret: Secret with HF_TOKEN.
        tracking_secret: Secret with WANDB_API_KEY.
        pvc_name: PersistentVolumeClaim to mount at /data; empty for none.
        node_selector: Labels of the nodes.
        tolerations: Taints that the pods tolerate.
        affinity: Node affinity of the pods.
        topology_key: Node label over whose values the pods are spread.
        queue: Kueue's local queue; empty for none.
        priority_class: PriorityClass of the pods; empty for the cluster's default.
        environment: Additional environment variables of the containers.
        grace_period_s: Seconds that a pod has to stop; must cover a training step, a save and its upload.
        max_restarts: How often torchrun restarts the ranks within their pods.
        backoff_limit: How often the operator restarts the pods of a node, on average.
        active_deadline_s: Seconds after which the job is stopped.
        ttl_s: Seconds after which a finished job is deleted.

    Raises:
        InputError: A value that no cluster accepts.
    """

    name: str
    image: str
    arguments: Sequence[str]
    nodes: int = 1
    gpus: int = 8
    processes: int = 0
    accelerator: str = "nvidia.com/gpu"
    cpu: str = "64"
    memory: str = "800Gi"
    shared_memory: str = "64Gi"
    work_dir_size: str = "400Gi"
    store_secret: str = "rarft-store"
    hub_secret: str = "rarft-hub"
    tracking_secret: str = "rarft-wandb"
    pvc_name: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    affinity: Mapping[str, Any] = field(default_factory=dict)
    topology_key: str = "kubernetes.io/hostname"
    queue: str = ""
    priority_class: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    grace_period_s: int = 1200
    max_restarts: int = 3
    backoff_limit: int = 10
    active_deadline_s: int = 15 * 24 * 3600
    ttl_s: int = 7 * 24 * 3600

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"job name {self.name!r}: must start with a lowercase letter and have at most 53 lowercase letters, "
                "digits and hyphens"
            )
        for name, minimum in _MINIMUM.items():
            if (value := getattr(self, name)) < minimum:
                raise InputError(f"job {self.name}: {name} {value}: must be at least {minimum}")

    @property
    def processes_per_node(self) -> int:
        """Number of processes that torchrun starts on each node."""
        return self.processes or self.gpus or 1
