"""The kinds of jobs that the launcher runs differ in what this class contains, and in nothing else."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rarft.cluster.job_config import Job


@dataclass(frozen=True)
class JobKind:
    """A custom resource of an operator, and how its objects are read and written."""

    kind: str
    group: str
    version: str
    plural: str
    operator: str  # that runs the jobs
    container: str  # name of the training container, as the operator requires
    pod_label: str  # label of a job's pods whose value is the job's name
    succeeded: str  # condition of a job that succeeded
    suspend_path: tuple[str, ...]  # field of the spec that contains `suspend`
    children: tuple[
        tuple[str, str], ...
    ]  # (kind, name) of the objects between a job and its pods; {} is the job's name
    manifest: Callable[[Job], dict[str, Any]]

    @property
    def name(self) -> str:
        """Name for users, as in `--profile`."""
        return self.kind.lower()

    def is_suspended(self, job: dict[str, Any]) -> bool:
        """Return True if a job's spec suspends it."""
        fields = job["spec"]
        for name in self.suspend_path:
            fields = fields.get(name, {})
        return bool(fields.get("suspend", False))

    def suspend(self, value: bool) -> dict[str, Any]:
        """Return the part of a manifest that suspends or resumes a job."""
        fields: dict[str, Any] = {"suspend": value}
        for name in reversed(self.suspend_path):
            fields = {name: fields}
        return {"spec": fields}
