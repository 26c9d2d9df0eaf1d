"""`rarft doctor`: check in advance what would fail later, and show the results as one table."""

from collections.abc import Callable
from typing import NamedTuple

from rarft.cluster import doctor_environment, doctor_local
from rarft.cluster.doctor_environment import SkippedCheckError
from rarft.environment import read_variable
from rarft.errors import InputError, one_line
from rarft.storage.s3 import is_object_uri

_OK, _FAILED, _SKIPPED = "ok", "failed", "skipped"


class Finding(NamedTuple):
    """Result of one check: its name, `ok`, `failed` or `skipped`, and what was found or what is wrong."""

    check: str
    status: str
    detail: str


def _run(name: str, check: Callable[[], str]) -> Finding:
    from rarft.cluster.api_errors import PermissionDeniedError

    try:
        return Finding(name, _OK, check())
    except SkippedCheckError as error:
        return Finding(name, _SKIPPED, one_line(error).partition(": ")[2])
    except PermissionDeniedError as error:  # the launcher does not need this permission
        return Finding(name, _SKIPPED, one_line(error).partition("; grant it")[0])
    except Exception as error:  # one failure must not hide the others
        return Finding(name, _FAILED, one_line(error))


def _check_cluster(namespace: str | None, image: str | None, queue: str | None) -> list[Finding]:
    from rarft.cluster.client import connect, current_namespace
    from rarft.cluster.doctor_cluster import ClusterChecks

    try:
        checks = ClusterChecks(connect(), namespace or current_namespace())
    except InputError as error:
        return [Finding("cluster", _FAILED, one_line(error))]
    findings = [
        _run("permissions", checks.permissions),
        _run("training operator", checks.operator),
        _run("quota", checks.quota),
    ]
    if queue:
        findings.append(_run("queue", lambda: checks.queue(queue)))
    if image:
        findings.append(_run("image", lambda: checks.image(image)))
    return findings


def doctor(
    data: str | None = None,
    out: str | None = None,
    gpus: int | None = None,
    cluster: bool = False,
    namespace: str | None = None,
    image: str | None = None,
    queue: str | None = None,
) -> tuple[str, list[str]]:
    """Check in advance what would fail later.

    Args:
        data: Annotations or validated data that should be readable, a path or URI.
        out: Folder or URI that should be writable.
        gpus: Number of GPUs that this machine should have.
        cluster: Whether to check the cluster.
        namespace: Namespace on the cluster; default: the current one.
        image: Image of the job.
        queue: Kueue's local queue of the job.

    Returns:
        The results as a table for the console, and the names of the failed checks.
    """
    findings = [
        _run("versions", doctor_local.versions),
        _run("GPUs", lambda: doctor_local.gpus(gpus)),
        _run("CUDA driver", doctor_environment.cuda_driver),
        _run("disk", doctor_local.disk),
        _run("caches", doctor_environment.caches),
        _run("temporary space", doctor_environment.temporary_space),
        _run("shared memory", lambda: doctor_environment.shared_memory(gpus or 0)),
        _run("limits", doctor_environment.limits),
        _run("locale", doctor_environment.text_encoding),
        _run("hub", doctor_environment.hub),
        _run("tracker", doctor_environment.tracker),
    ]
    if any(is_object_uri(uri) for uri in (data, out) if uri) or read_variable("AWS_ENDPOINT_URL"):
        findings.append(_run("store", doctor_environment.store))
    if data:
        findings.append(_run("data", lambda: doctor_local.data(data)))
    if out:
        findings.append(_run("out", lambda: doctor_local.out(out)))
    if cluster:
        findings += _check_cluster(namespace, image, queue)
    else:
        hint = "use --cluster to check permissions, operator, quota, queue and image"
        findings.append(Finding("cluster", _SKIPPED, hint))
    name_width, status_width = (max(len(finding[column]) for finding in findings) for column in (0, 1))
    table = "\n".join(f"{name:<{name_width}}  {status:<{status_width}}  {detail}" for name, status, detail in findings)
    return table, [finding.check for finding in findings if finding.status == _FAILED]
