"""What a training job on a cluster is asked to be."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rarft.errors import InputError

# Of the names of pods and services that are made from the job's: `-worker-99` must fit into 63 characters.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")


@dataclass(frozen=True)
class Job:
    """A training job.

    Args:
        name: of the job; pods are named after it.
        image: of the containers.
        arguments: flags of `rarft train`.
        nodes: machines.
        gpus: of each machine; 0 for none.
        processes: on each machine; 0 for one a GPU, and one where there is none.
        accelerator: resource that the nodes offer.
        cpu: CPUs of each machine's pod.
        memory: of each machine's pod, the shared memory included.
        shared_memory: of /dev/shm.
        scratch: disk for checkpoints on their way to the store, and for what is downloaded.
        store_secret: Secret with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_ENDPOINT_URL, AWS_REGION.
        hub_secret: Secret with HF_TOKEN.
        tracking_secret: Secret with WANDB_API_KEY.
        claim: PersistentVolumeClaim mounted at /data; empty for none.
        node_selector: labels of the nodes.
        tolerations: taints that the pods tolerate.
        affinity: the pods' node affinity.
        topology_key: nodes are spread over this label's values.
        queue: Kueue's local queue; empty for none.
        priority_class: the pods' PriorityClass; empty for the cluster's default.
        environment: further variables of the containers.
        grace_s: seconds that a pod gets to end: more than a step, a save and its upload take.
        restarts: how often the ranks are started again within their pods.
        backoff: how often the pods of a node are started again, on average.
        deadline_s: seconds after which the job is ended, whatever has become of who started it.
        ttl_s: seconds after which a finished job is removed.

    Raises:
        InputError: a value that no cluster takes.
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
    scratch: str = "400Gi"
    store_secret: str = "rarft-store"
    hub_secret: str = "rarft-hub"
    tracking_secret: str = "rarft-wandb"
    claim: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    affinity: Mapping[str, Any] = field(default_factory=dict)
    topology_key: str = "kubernetes.io/hostname"
    queue: str = ""
    priority_class: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)
    grace_s: int = 1200
    restarts: int = 3
    backoff: int = 10
    deadline_s: int = 15 * 24 * 3600
    ttl_s: int = 7 * 24 * 3600

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise InputError(
                f"job name {self.name!r}: must be at most 53 lower-case letters, digits and hyphens, a letter first"
            )
        for name, least in {
            "nodes": 1,
            "gpus": 0,
            "processes": 0,
            "restarts": 0,
            "backoff": 0,
            "grace_s": 120,
        }.items():
            if getattr(self, name) < least:
                raise InputError(f"job {self.name}: {name} {getattr(self, name)}: must be at least {least}")

    @property
    def processes_per_node(self) -> int:
        """How many processes torchrun starts on each machine."""
        return self.processes or self.gpus or 1
