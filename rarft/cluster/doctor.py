"""`rarft doctor`: what would fail later, looked at now, as one table."""

import importlib.metadata
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rarft.cluster.pytorchjob import GROUP, PLURAL
from rarft.errors import InputError, one_line
from rarft.storage.files import existing_file, make_folder, place_of

# What the launcher asks of the cluster, as its Role grants it.
RIGHTS = (
    *((verb, GROUP, PLURAL, "") for verb in ("create", "delete", "get", "patch")),
    ("list", "", "pods", ""),
    ("watch", "", "pods", ""),
    ("list", "", "events", ""),
    ("get", "", "pods", "log"),
)
_PACKAGES = ("torch", "transformers", "trl", "deepspeed", "flash-attn", "vllm", "kfp")
_TIMEOUT_S = 5.0  # seconds that the API may be away
_LEAST_DISK = 50e9  # bytes for checkpoints on their way, and for a model of 7 billion parameters

OK, FAILS, SKIPPED = "ok", "fails", "not asked"


@dataclass(frozen=True)
class Finding:
    """What one look found.

    Attributes:
        what: that was looked at.
        verdict: `ok`, `fails` or `not asked`.
        detail: what was seen, or what is wrong and what to do.
    """

    what: str
    verdict: str
    detail: str


@dataclass(frozen=True)
class DoctorOptions:
    """What the user wants looked at.

    Args:
        data: annotations or validated data, a path or URI.
        out: where checkpoints will go.
        gpus: how many this machine should show.
        cluster: whether to look at the cluster.
        namespace: on it; None for one's own.
        image: that the job will use.
        queue: Kueue's local queue that it waits in.
    """

    data: str | None = None
    out: str | None = None
    gpus: int | None = None
    cluster: bool = False
    namespace: str | None = None
    image: str | None = None
    queue: str | None = None


def _looked(what: str, look: Callable[[], str]) -> Finding:
    from rarft.cluster.client import DeniedError

    try:
        return Finding(what, OK, look())
    except DeniedError as error:  # this account may not look, which the launcher need not either
        return Finding(what, SKIPPED, one_line(error).partition("; grant it")[0])
    except Exception as error:  # each look stands for itself: all that is wrong is to be seen at once
        return Finding(what, FAILS, one_line(error))


def _versions() -> str:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return f"python {sys.version.split()[0]}, {', '.join(found) or 'no torch: validation only'}"


def _gpus(wanted: int | None) -> str:
    import torch

    shown = torch.cuda.device_count()
    if wanted and shown < wanted:
        raise InputError(f"{shown} of {wanted} visible to torch {torch.__version__}; is the driver mounted?")
    names = ", ".join(sorted({torch.cuda.get_device_name(index) for index in range(shown)}))
    return f"{shown} {names}" if shown else "none: a CPU trains the tiny model alone"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free
    if free < _LEAST_DISK:
        raise InputError(f"{free / 1e9:.0f} GB free in {Path.cwd()}; a 7B run with --scratch here needs some 50 GB")
    return f"{free / 1e9:.0f} GB free here"


def _data(uri: str) -> str:
    from rarft.storage.s3 import is_object_uri, object_version

    if is_object_uri(uri):
        return f"{uri}: {object_version(uri, 'data').split()[0]} bytes"
    return f"{uri}: {existing_file(uri, 'data').stat().st_size} bytes"


def _out(uri: str) -> str:
    make_folder(place_of(uri, "out"), "out")
    return f"{uri}: can be written to"


def _ask(what: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Make a call that a person waits for.

    Raises:
        InputError: what is asked for is not there, or the cluster does not answer; what it says.
    """
    from kubernetes import client

    from rarft.cluster.client import call_with_retry, message_of

    try:
        return call_with_retry(what, call, *arguments, patience=_TIMEOUT_S, **options)
    except client.ApiException as error:
        raise InputError(f"{what}: {error.status} {message_of(error)}") from error


def _on_cluster(asked: DoctorOptions) -> Iterator[Finding]:
    from kubernetes import client
    from kubernetes.utils.quantity import parse_quantity

    from rarft.cluster.client import connect, current_namespace

    try:
        api = connect()
    except InputError as error:
        yield Finding("cluster", FAILS, one_line(error))
        return
    namespace = asked.namespace or current_namespace()
    reviews = client.AuthorizationV1Api(api)

    def rights() -> str:
        missing = []
        for verb, group, resource, part in RIGHTS:
            attributes = client.V1ResourceAttributes(
                namespace=namespace, verb=verb, group=group, resource=resource, subresource=part or None
            )
            review = client.V1SelfSubjectAccessReview(
                spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
            )
            answer = _ask("asking for rights", reviews.create_self_subject_access_review, review)
            if not answer.status.allowed:
                missing.append(f"{verb} {resource}{f'/{part}' if part else ''}")
        if missing:
            raise InputError(f"in {namespace} this account may not {', '.join(missing)}; kubectl apply -k k8s/base")
        return f"in {namespace} all that the launcher needs"

    def operator() -> str:
        jobs = client.CustomObjectsApi(api)
        try:
            _ask("looking for PyTorchJobs", jobs.get_namespaced_custom_object, GROUP, "v1", namespace, PLURAL, "none")
        except InputError as error:
            if '"none" not found' not in str(error):  # else the kind is known, and no job of that name there
                raise InputError(f"{error}; is the training operator installed?") from error
        return "installed"

    def quota() -> str:
        quotas = _ask("looking at quotas", client.CoreV1Api(api).list_namespaced_resource_quota, namespace)
        used = {
            name: ((quota.status.used or {}).get(name, "0"), hard)
            for quota in quotas.items
            for name, hard in (quota.status.hard or {}).items()
        }
        full = [name for name, (now, hard) in used.items() if parse_quantity(now) >= parse_quantity(hard)]
        if full:
            raise InputError(f"used up: {', '.join(f'{n} {used[n][0]} of {used[n][1]}' for n in full)}; ask for more")
        return ", ".join(f"{name} {now} of {hard}" for name, (now, hard) in used.items()) or "none"

    yield _looked("rights", rights)
    yield _looked("training operator", operator)
    yield _looked("quota", quota)
    if asked.queue:
        yield _looked("queue", lambda: _queue(client.CustomObjectsApi(api), namespace, str(asked.queue)))
    if asked.image:
        yield _looked("image", lambda: _image(client.CoreV1Api(api), str(asked.image)))


def _queue(objects: Any, namespace: str, name: str) -> str:
    queue = _ask(
        "looking at the queue",
        objects.get_namespaced_custom_object,
        "kueue.x-k8s.io",
        "v1beta1",
        namespace,
        "localqueues",
        name,
    )
    status = queue.get("status", {})
    for condition in status.get("conditions", []):
        if condition["type"] == "Active" and condition["status"] == "False":
            raise InputError(f"{name} is not active: {condition.get('message', '')}")
    return f"{name}: {status.get('pendingWorkloads', 0)} wait, {status.get('admittedWorkloads', 0)} run"


def _image(core: Any, image: str) -> str:
    nodes = _ask("looking at the nodes", core.list_node).items
    having = [node for node in nodes if any(image in (each.names or []) for each in node.status.images or [])]
    return f"{image}: on {len(having)} of {len(nodes)} nodes already; the others pull it"


def examine(asked: DoctorOptions) -> list[Finding]:
    """Look at everything that was asked for."""
    findings = [_looked("versions", _versions), _looked("GPUs", lambda: _gpus(asked.gpus)), _looked("disk", _disk)]
    if asked.data:
        findings.append(_looked("data", lambda: _data(str(asked.data))))
    if asked.out:
        findings.append(_looked("out", lambda: _out(str(asked.out))))
    if asked.cluster:
        findings += _on_cluster(asked)
    else:
        findings.append(Finding("cluster", SKIPPED, "--cluster looks at rights, operator, quota, queue and image"))
    return findings


def table(findings: Sequence[Finding]) -> str:
    """The findings as a table for a console."""
    widths = [max(len(getattr(finding, name)) for finding in findings) for name in ("what", "verdict")]
    return "\n".join(
        f"{finding.what:<{widths[0]}}  {finding.verdict:<{widths[1]}}  {finding.detail}" for finding in findings
    )
