"""`rarft cancel`: delete a training job."""

from kubernetes import client

from rarft.cluster.job_client import JobClient
from rarft.errors import InputError


def cancel(api: client.ApiClient, namespace: str, name: str) -> None:
    """Delete a job; its pods save a checkpoint during their grace period.

    Raises:
        InputError: There is no such job, or this account may not delete it.
    """
    jobs = JobClient(api, namespace, name)
    if not jobs.delete():
        existing = ", ".join(jobs.names()) or "none"
        raise InputError(f"job {name}: not found in namespace {namespace}; existing jobs: {existing}")
