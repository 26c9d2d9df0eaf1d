"""Checks of the cluster: namespace, permissions, operators, quota, GPUs, queue, image. Each returns what it found."""

from collections.abc import Callable
from typing import Any

from kubernetes import client
from kubernetes.utils.quantity import parse_quantity

from rarft.cluster import kueue
from rarft.cluster.api_errors import api_message
from rarft.cluster.client import call_with_retry
from rarft.cluster.doctor_operator import OperatorCheck
from rarft.cluster.job_kind import JobKind
from rarft.cluster.permissions import LAUNCHER_RULES, missing_permissions
from rarft.errors import InputError

_TIMEOUT_S = 5.0


def _call(action: str, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Make an API call with a short timeout; a rejection is an `InputError`."""
    try:
        return call_with_retry(action, call, *arguments, timeout_s=_TIMEOUT_S, **options)
    except client.ApiException as error:
        raise InputError(f"{action}: {error.status} {api_message(error)}") from error


def _is_ready(node: Any) -> bool:
    """Check whether a node accepts pods."""
    ready = [each.status for each in node.status.conditions or [] if each.type == "Ready"]
    return not node.spec.unschedulable and ready == ["True"]


class ClusterChecks:
    """Checks of one namespace; each raises `InputError` if something is wrong."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self._core, self._objects = client.CoreV1Api(api), client.CustomObjectsApi(api)
        self._api, self._namespace = api, namespace

    def permissions(self) -> str:
        """Check that this account may make all calls of the launcher."""
        if missing := missing_permissions(self._api, self._namespace, list(LAUNCHER_RULES), timeout_s=_TIMEOUT_S):
            raise InputError(
                f"in {self._namespace} this account may not {', '.join(missing)}; kubectl apply -k k8s/base"
            )
        return f"in {self._namespace} all that the launcher needs"

    def namespace(self) -> str:
        """Check that the namespace exists."""
        try:
            call_with_retry("get namespace", self._core.read_namespace, self._namespace, timeout_s=_TIMEOUT_S)
        except client.ApiException as error:
            raise InputError(f"{self._namespace}: {api_message(error)}; set --namespace") from error
        return self._namespace

    def operator(self, kind: JobKind, image: str | None, gpus: int | None, queue: str | None) -> str:
        """Check that the operator of a kind of jobs runs, and that it would accept a job."""
        return OperatorCheck(self._api, self._namespace, kind).run(image, gpus, queue)

    def gpus(self, required: int, resource: str) -> str:
        """Check that the ready nodes of the cluster have a number of GPUs."""
        nodes = [node for node in self._nodes() if _is_ready(node)]
        counts = [int(parse_quantity((node.status.allocatable or {}).get(resource, "0"))) for node in nodes]
        found = f"{sum(counts)} {resource} on {sum(count > 0 for count in counts)} ready nodes"
        if sum(counts) < required:
            raise InputError(f"{found}, not {required}; add nodes, or check the device plugin")
        return f"{found}, some of which may be in use"

    def _nodes(self) -> list[Any]:
        return list(_call("get nodes", self._core.list_node).items)

    def quota(self) -> str:
        """Check that no quota is exhausted."""
        quotas = _call("get quotas", self._core.list_namespaced_resource_quota, self._namespace)
        used = {
            name: ((quota.status.used or {}).get(name, "0"), hard)
            for quota in quotas.items
            for name, hard in (quota.status.hard or {}).items()
        }
        exhausted = [name for name, (now, hard) in used.items() if parse_quantity(now) >= parse_quantity(hard)]
        if exhausted:
            amounts = ", ".join(f"{name} {used[name][0]} of {used[name][1]}" for name in exhausted)
            raise InputError(f"quota exhausted: {amounts}; request more")
        return ", ".join(f"{name} {now} of {hard}" for name, (now, hard) in used.items()) or "none"

    def queue(self, name: str) -> str:
        """Check that Kueue's local queue of this name is active."""
        get = self._objects.get_namespaced_custom_object
        queue = _call("get queue", get, kueue.GROUP, kueue.VERSION, self._namespace, "localqueues", name)
        status = queue.get("status", {})
        for condition in status.get("conditions", []):
            if condition["type"] == "Active" and condition["status"] == "False":
                raise InputError(f"{name} is not active: {condition.get('message', '')}")
        return f"{name}: {status.get('pendingWorkloads', 0)} pending, {status.get('admittedWorkloads', 0)} admitted"

    def image(self, name: str) -> str:
        """Return on how many nodes an image is present."""
        nodes = self._nodes()
        present = [node for node in nodes if any(name in (image.names or []) for image in node.status.images or [])]
        return f"{name}: on {len(present)} of {len(nodes)} nodes; the others pull it"
