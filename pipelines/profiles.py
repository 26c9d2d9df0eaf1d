"""Compile-time profiles: settings that Kubeflow does not accept as parameters of a run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """A compile-time profile."""

    job_kind: str = ""  # training is a job of this kind on several nodes, which its step launches and monitors
    mount_pvc: bool = False  # each step mounts the PersistentVolumeClaim of the parameter `pvc_name` at /data
    retries: int = 2  # of every step except training and evaluation, after 30, 60, ... seconds
    step_hours: int = 12  # time limit of every step except training and evaluation
    training_hours: int = 14 * 24  # time limit, including restarts
    evaluation_hours: int = 24  # time limit
    # Time limit of the run. It ends a run whose pods are never scheduled, because other limits start with the pod.
    run_hours: int = 30 * 24
    kept_hours: int = 7 * 24  # after which the pods and logs of a finished run are deleted
    shared_memory: str = "8Gi"  # size of /dev/shm in steps with accelerators; part of the step's memory


PROFILES = {
    "store": Profile(),
    "pvc": Profile(mount_pvc=True),
    "trainjob": Profile(job_kind="trainjob"),
    "pytorchjob": Profile(job_kind="pytorchjob"),
    "trial": Profile(
        retries=0, step_hours=1, training_hours=2, evaluation_hours=1, run_hours=12, kept_hours=24, shared_memory="1Gi"
    ),
}
DEFAULT_PROFILE = "store"
