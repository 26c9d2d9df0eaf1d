"""`rarft cancel`: end a training job, with all that it holds."""

from typing import Any

from kubernetes import client

from rarft.cluster.client import call_with_retry
from rarft.cluster.pytorchjob import GROUP, PLURAL, VERSION
from rarft.errors import InputError


def cancel(api: client.ApiClient, namespace: str, name: str) -> None:
    """Delete the job; its pods get their grace period, in which a checkpoint is saved.

    Args:
        api: client of the cluster.
        namespace: where the job runs.
        name: of the job.

    Raises:
        InputError: there is no such job, or this account may not delete it.
    """
    jobs = client.CustomObjectsApi(api)
    where: dict[str, Any] = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
    try:
        call_with_retry(
            f"deleting job {name}",
            jobs.delete_namespaced_custom_object,
            **where,
            name=name,
            propagation_policy="Background",
        )
    except client.ApiException as error:
        if error.status != 404:
            raise
        listed = call_with_retry(f"looking for job {name}", jobs.list_namespaced_custom_object, **where)["items"]
        there = ", ".join(sorted(job["metadata"]["name"] for job in listed)) or "none"
        raise InputError(f"no job {name} in namespace {namespace}; there are: {there}") from error
