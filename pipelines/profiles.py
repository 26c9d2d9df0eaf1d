"""Compile-time profiles: settings that Kubeflow does not accept as parameters of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """A compile-time profile.

    Args:
        use_pytorchjob: Whether training is a PyTorchJob on several nodes, which its step launches and monitors.
        mount_pvc: Whether each step mounts the PersistentVolumeClaim of the parameter `pvc_name` at /data.
        retries: How often a step without accelerators is retried, after 30, 60, ... seconds.
        step_hours: Time limit of a step without accelerators.
        training_hours: Time limit of training, including its restarts.
        evaluation_hours: Time limit of evaluation.
        shared_memory: Size of /dev/shm in steps with accelerators; part of the step's memory.
    """

    use_pytorchjob: bool = False
    mount_pvc: bool = False
    retries: int = 2
    step_hours: int = 12
    training_hours: int = 14 * 24
    evaluation_hours: int = 24
    shared_memory: str = "8Gi"


PROFILES = {
    "store": Profile(),
    "pvc": Profile(mount_pvc=True),
    "pytorchjob": Profile(use_pytorchjob=True),
    "trial": Profile(retries=0, step_hours=1, training_hours=2, evaluation_hours=1, shared_memory="1Gi"),
}
DEFAULT_PROFILE = "store"
