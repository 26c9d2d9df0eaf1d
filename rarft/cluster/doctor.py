"""`rarft doctor`: check in advance what would fail later, and show the results as one table."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from rarft.cluster import doctor_environment, doctor_local
from rarft.cluster.doctor_environment import SkippedCheckError
from rarft.environment import read_variable
from rarft.errors import InputError, one_line
from rarft.redaction import redact
from rarft.storage.s3 import is_object_uri

if TYPE_CHECKING:
    from rarft.cluster.doctor_cluster import ClusterChecks

_OK, _FAILED, _SKIPPED = "ok", "failed", "skipped"


class Finding(NamedTuple):
    """Result of one check: its name, `ok`, `failed` or `skipped`, and what was found or what is wrong."""

    check: str
    status: str
    detail: str


def _run(name: str, check: Callable[[], str], passed_on: type[Exception] | tuple[()] = ()) -> Finding:
    """Run a check; exceptions of the type `passed_on` are raised."""
    from rarft.cluster.api_errors import PermissionDeniedError

    try:
        return Finding(name, _OK, redact(check()))
    except passed_on:
        raise
    except SkippedCheckError as error:
        return Finding(name, _SKIPPED, one_line(error).partition(": ")[2])
    except PermissionDeniedError as error:  # the launcher does not need this permission
        return Finding(name, _SKIPPED, f"{one_line(error).partition('; grant it')[0]}; kubectl apply -k k8s/doctor")
    except Exception as error:  # one failure must not hide the others
        return Finding(name, _FAILED, one_line(error))


def _check_operators(
    checks: "ClusterChecks", kind: str | None, image: str | None, gpus: int | None, queue: str | None
) -> list[Finding]:
    """Check the operator of one kind of jobs; by default all of them, of which one must be installed."""
    from rarft.cluster.api_errors import UnknownKindError
    from rarft.cluster.kinds import JOB_KINDS

    findings, absent = [], []
    for name in [kind] if kind else list(JOB_KINDS):
        job_kind = JOB_KINDS[name]
        try:
            finding = _run(job_kind.kind, partial(checks.operator, job_kind, image, gpus, queue), UnknownKindError)
        except UnknownKindError as error:
            absent.append(job_kind.kind)
            finding = Finding(job_kind.kind, _FAILED, one_line(error))
        findings.append(finding)
    if len(absent) == len(findings):
        return findings
    return [Finding(each.check, _SKIPPED, "not installed") if each.check in absent else each for each in findings]


def _check_cluster(
    namespace: str | None, image: str | None, queue: str | None, gpus: int | None, accelerator: str, kind: str | None
) -> list[Finding]:
    from rarft.cluster.client import connect, current_namespace
    from rarft.cluster.doctor_cluster import ClusterChecks

    try:
        checks = ClusterChecks(connect(), namespace or current_namespace())
    except InputError as error:
        return [Finding("cluster", _FAILED, one_line(error))]
    findings = [_run("namespace", checks.namespace)]
    if findings[0].status == _FAILED:
        return findings
    findings += [
        _run("permissions", checks.permissions),
        *_check_operators(checks, kind, image, gpus, queue),
        _run("quota", checks.quota),
    ]
    if gpus:
        findings.append(_run("cluster GPUs", lambda: checks.gpus(gpus, accelerator)))
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
    accelerator: str = "nvidia.com/gpu",
    kind: str | None = None,
) -> tuple[str, list[str]]:
    """Check in advance what would fail later.

    Args:
        data: Annotations or validated data that should be readable, a path or URI.
        out: Folder or URI that should be writable.
        gpus: Number of GPUs that this machine should have; with `cluster`, that the cluster should have.
        cluster: Whether to check the cluster.
        namespace: Namespace on the cluster; default: the current one.
        image: Image of the job.
        queue: Kueue's local queue of the job.
        accelerator: Resource name of the cluster's GPUs.
        kind: Kind of the job, trainjob or pytorchjob; default: both.

    Returns:
        The results as a table for the console, and the names of the failed checks.
    """
    local_gpus = None if cluster else gpus
    findings = [
        _run("versions", doctor_local.versions),
        _run("GPUs", lambda: doctor_local.gpus(local_gpus)),
        _run("CUDA driver", doctor_environment.cuda_driver),
        _run("disk", doctor_local.disk),
        _run("caches", doctor_environment.caches),
        _run("temporary space", doctor_environment.temporary_space),
        _run("shared memory", lambda: doctor_environment.shared_memory(local_gpus or 0)),
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
        findings += _check_cluster(namespace, image, queue, gpus, accelerator, kind)
    else:
        hint = "use --cluster to check permissions, operators, quota, GPUs, queue and image"
        findings.append(Finding("cluster", _SKIPPED, hint))
    name_width, status_width = (max(len(finding[column]) for finding in findings) for column in (0, 1))
    table = "\n".join(f"{name:<{name_width}}  {status:<{status_width}}  {detail}" for name, status, detail in findings)
    return table, [finding.check for finding in findings if finding.status == _FAILED]
