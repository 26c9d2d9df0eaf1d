"""What is decided when the pipeline is compiled: Kubeflow takes none of it when a run is submitted."""

from dataclasses import dataclass

_HOUR = 3600


@dataclass(frozen=True)
class Profile:
    """A named set of such decisions.

    Args:
        job: whether training is a PyTorchJob over several machines, which its step starts and watches.
        claim: whether each step mounts the PersistentVolumeClaim that the run's parameter `claim` names, at /data.
        retries: how often a step that needs no accelerator is tried again, with waits of 30, 60, ... seconds.
        step_hours: most that such a step may take.
        training_hours: most that training may take, its restarts included.
        evaluation_hours: most that evaluation may take.
        shared_memory: of a step that works in several processes (/dev/shm); it counts as the step's memory.
    """

    job: bool = False
    claim: bool = False
    retries: int = 2
    step_hours: int = 12
    training_hours: int = 14 * 24
    evaluation_hours: int = 24
    shared_memory: str = "8Gi"

    @property
    def step_seconds(self) -> int:
        """`step_hours` in seconds."""
        return self.step_hours * _HOUR

    @property
    def training_seconds(self) -> int:
        """`training_hours` in seconds."""
        return self.training_hours * _HOUR

    @property
    def evaluation_seconds(self) -> int:
        """`evaluation_hours` in seconds."""
        return self.evaluation_hours * _HOUR


PROFILES = {
    "store": Profile(),
    "claim": Profile(claim=True),
    "pytorchjob": Profile(job=True),
    "trial": Profile(retries=0, step_hours=1, training_hours=2, evaluation_hours=1, shared_memory="1Gi"),
}
DEFAULT_PROFILE = "store"
