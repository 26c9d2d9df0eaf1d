"""Configuration of a training job on a cluster."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rarft.errors import InputError

# Names of pods and services derive from the job's: with `-worker-99` they must fit into 63 characters.
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,51}[a-z0-9])?")
_MINIMUM = {"nodes": 1, "gpus": 0, "processes": 0}


@dataclass(frozen=True)
class Job:
    """A training job; raises `InputError` for a value that no cluster accepts."""

    name: str  # the names of its pods derive from it
    image: str
    arguments: Sequence[str]  # flags of `rarft train`
    nodes: int = 1
    gpus: int = 8  # per node; 0 for none
    processes: int = 0  # per node; 0 for one per GPU, or one without GPUs
    accelerator: str = "nvidia.com/gpu"  # resource name of the GPUs
    cpu: str = "64"  # per pod
    memory: str = "800Gi"  # per pod, including shared memory
    # Ephemeral storage per pod, the size of /scratch. Holds four checkpoints of the 7B model (116 GB each: three that
    # --save_total_limit keeps, and a new one), the final model and the downloaded one (17 GB each), and videos.
    disk: str = "640Gi"
    store_secret: str = "rarft-store"  # secrets with the keys of `rarft.cluster.secrets`
    hub_secret: str = "rarft-hub"
    tracking_secret: str = "rarft-wandb"
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: Sequence[Mapping[str, Any]] = ()
    affinity: Mapping[str, Any] = field(default_factory=dict)  # of nodes
    queue: str = ""  # Kueue's local queue; empty for none
    priority_class: str = ""  # of the pods; empty for the cluster's default

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
