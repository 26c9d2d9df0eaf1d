"""`rarft doctor`: check in advance what would fail later, and show the results as one table."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rarft.cluster import doctor_local
from rarft.errors import InputError, one_line

OK, FAILED, SKIPPED = "ok", "failed", "skipped"


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        check: Name of the check.
        status: `ok`, `failed` or `skipped`.
        detail: What was found, or what is wrong and what to do.
    """

    check: str
    status: str
    detail: str


@dataclass(frozen=True)
class DoctorOptions:
    """Checks to make.

    Args:
        data: Annotations or validated data that should be readable, a path or URI.
        out: Folder or URI that should be writable.
        gpus: Number of GPUs that this machine should have.
        cluster: Whether to check the cluster.
        namespace: Namespace on the cluster; default: the current one.
        image: Image of the job.
        queue: Kueue's local queue of the job.
    """

    data: str | None = None
    out: str | None = None
    gpus: int | None = None
    cluster: bool = False
    namespace: str | None = None
    image: str | None = None
    queue: str | None = None


def _run(name: str, check: Callable[[], str]) -> Finding:
    from rarft.cluster.client import PermissionDeniedError

    try:
        return Finding(name, OK, check())
    except PermissionDeniedError as error:  # the launcher does not need this permission
        return Finding(name, SKIPPED, one_line(error).partition("; grant it")[0])
    except Exception as error:  # one failure must not hide the others
        return Finding(name, FAILED, one_line(error))


def _local_checks(options: DoctorOptions) -> dict[str, Callable[[], str]]:
    data, out = options.data, options.out
    checks = {
        "versions": doctor_local.versions,
        "GPUs": lambda: doctor_local.gpus(options.gpus),
        "disk": doctor_local.disk,
    }
    if data:
        checks["data"] = lambda: doctor_local.data(data)
    if out:
        checks["out"] = lambda: doctor_local.out(out)
    return checks


def _cluster_checks(options: DoctorOptions) -> Mapping[str, Callable[[], str]]:
    from rarft.cluster.client import connect, current_namespace
    from rarft.cluster.doctor_cluster import ClusterChecks

    checks = ClusterChecks(connect(), options.namespace or current_namespace())
    queue, image = options.queue, options.image
    return {
        "permissions": checks.permissions,
        "training operator": checks.operator,
        "quota": checks.quota,
        **({"queue": lambda: checks.queue(queue)} if queue else {}),
        **({"image": lambda: checks.image(image)} if image else {}),
    }


def diagnose(options: DoctorOptions) -> list[Finding]:
    """Make all checks that the options ask for."""
    findings = [_run(name, check) for name, check in _local_checks(options).items()]
    if not options.cluster:
        skipped = "use --cluster to check permissions, operator, quota, queue and image"
        return [*findings, Finding("cluster", SKIPPED, skipped)]
    try:
        checks = _cluster_checks(options)
    except InputError as error:
        return [*findings, Finding("cluster", FAILED, one_line(error))]
    return findings + [_run(name, check) for name, check in checks.items()]


def table(findings: Sequence[Finding]) -> str:
    """Return the findings as aligned text."""
    widths = [max(len(getattr(finding, name)) for finding in findings) for name in ("check", "status")]
    return "\n".join(
        f"{finding.check:<{widths[0]}}  {finding.status:<{widths[1]}}  {finding.detail}" for finding in findings
    )
