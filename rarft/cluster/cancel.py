"""`rarft cancel`: delete a job of any kind."""

from rarft.cluster.api_errors import PermissionDeniedError, UnknownKindError
from rarft.cluster.client import connect, current_namespace
from rarft.cluster.job_client import JobClient
from rarft.cluster.kinds import JOB_KINDS
from rarft.errors import InputError


def _existing(jobs: JobClient) -> list[str]:
    """Return the names of the jobs of one kind; empty if this account may not list them."""
    try:
        return jobs.names()
    except PermissionDeniedError:
        return []


def cancel(name: str, namespace: str | None) -> str:
    """Delete a job, by default in the current namespace; return the namespace.

    Raises:
        InputError: There is no such job, or this account may not delete it.
    """
    namespace = namespace or current_namespace()
    api, existing, errors = connect(), [], []
    for kind in JOB_KINDS.values():
        jobs = JobClient(api, namespace, kind, name)
        try:
            if jobs.delete():
                return namespace
            existing += _existing(jobs)
        except (UnknownKindError, PermissionDeniedError) as error:
            errors.append(error)
    denials = [error for error in errors if isinstance(error, PermissionDeniedError)]
    if denials or len(errors) == len(JOB_KINDS):
        raise [*denials, *errors][0]
    hint = f"; existing jobs: {', '.join(sorted(existing))}" if existing else "; check the name and the namespace"
    raise InputError(f"job {name}: not found in namespace {namespace}{hint}")
