"""API calls about one job: the job itself, its pods, their logs and events, and its place in Kueue's queue."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from kubernetes import client, watch

from rarft.cluster import kueue
from rarft.cluster.api_errors import api_message, explain, is_absent
from rarft.cluster.client import call_with_retry, logger
from rarft.cluster.job_kind import JobKind
from rarft.errors import InputError

_OUTAGE_TIMEOUT_S = 24 * 3600.0  # the API may be down while a job runs: the pipeline step has its own time limit
_LOG_TIMEOUT_S, _LOG_REQUEST_TIMEOUT_S = 5.0, (3.0, 5.0)  # a lost node must not delay the report of its failure
_SINGLE_REQUEST_TIMEOUT_S = 5
_MAX_LOG_LINES = 400
_PAGE_SIZE = 500


class Workload(NamedTuple):
    """Kueue's object for a job: its uid, and why it waits (empty if it does not)."""

    uid: str
    reason: str


class JobClient:
    """Calls about the job of one name.

    Attributes:
        denial_timeout_s: Seconds after which a missing permission is believed, and raised as `PermissionDeniedError`.
    """

    def __init__(self, api: client.ApiClient, namespace: str, kind: JobKind, name: str) -> None:
        self.namespace, self.kind, self.name = namespace, kind, name
        self.denial_timeout_s = 0.0
        self._jobs, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self._resource: dict[str, Any] = {
            "group": kind.group, "version": kind.version, "namespace": namespace, "plural": kind.plural
        }  # fmt: skip
        self._pods: dict[str, Any] = {"namespace": namespace, "label_selector": f"{kind.pod_label}={name}"}

    def create(self, manifest: dict[str, Any], should_retry: Callable[[], bool]) -> dict[str, Any] | None:
        """Create the job and return it; None if one of that name exists.

        Raises:
            InputError: The API server rejects the manifest.
            ChildFailedError: The API server or a webhook fails.
        """
        created: dict[str, Any] | None = self._call(
            "create",
            self._jobs.create_namespaced_custom_object,
            absent=409,
            **self._resource,
            body=manifest,
            field_validation="Strict",
            should_retry=should_retry,
        )
        return created

    def get(self) -> dict[str, Any] | None:
        """Return the job; None if it does not exist."""
        call = self._jobs.get_namespaced_custom_object
        job: dict[str, Any] | None = self._call_about_job("get", call, timeout_s=_OUTAGE_TIMEOUT_S)
        return job

    def names(self) -> list[str]:
        """Return the names of all jobs in the namespace."""
        listed = self._call("list", self._jobs.list_namespaced_custom_object, **self._resource)
        return sorted(job["metadata"]["name"] for job in listed["items"])

    def resume(self) -> None:
        """Clear the job's `suspend` field; does nothing if the job does not exist."""
        self._call_about_job("resume", self._jobs.patch_namespaced_custom_object, body=self.kind.suspend(False))

    def delete(self, propagation: str = "Background") -> bool:
        """Delete the job; returns False if it does not exist. `Foreground` keeps it until its pods are gone."""
        call = self._jobs.delete_namespaced_custom_object
        return self._call_about_job("delete", call, propagation_policy=propagation) is not None

    def try_get(self) -> dict[str, Any] | None:
        """Return the job, or None if it does not exist, like `get` without retries.

        Raises:
            ApiException: The API server rejects the request.
            HTTPError, OSError: The API server is away.
        """
        job: dict[str, Any] | None = self._try(self._jobs.get_namespaced_custom_object)
        return job

    def try_delete(self) -> None:
        """Delete the job, like `delete` without retries; raises the errors of `try_get`."""
        self._try(self._jobs.delete_namespaced_custom_object, propagation_policy="Background")

    def pods(self) -> tuple[list[Any], str]:
        """Return the job's pods, and the resource version to watch them from."""
        return self._list("list pods of", self._core.list_namespaced_pod, **self._pods)

    def watch_pods(self, version: str | None, timeout_s: float) -> Iterator[Any]:
        """Yield a pod whenever one changes after a resource version (None: the current one), without retries.

        Raises:
            ApiException: The API server rejects the call, such as a version that is too old.
            HTTPError, OSError: The connection breaks.
        """
        events = watch.Watch().stream(
            self._core.list_namespaced_pod,
            **self._pods,
            resource_version=version,
            timeout_seconds=timeout_s,
            _request_timeout=(10, timeout_s + 10),
        )
        return (event["object"] for event in events)

    def warnings(self) -> list[Any]:
        """Return all warning events of the namespace."""
        call = self._core.list_namespaced_event
        events, _ = self._list("list events of", call, namespace=self.namespace, field_selector="type=Warning")
        return events

    def workload(self, uid: str) -> Workload | None:
        """Return Kueue's workload of the job with this uid; None if there is none."""
        listed = self._call(
            "get Kueue's workload of",
            self._jobs.list_namespaced_custom_object,
            **{**self._resource, "group": kueue.GROUP, "version": kueue.VERSION, "plural": kueue.WORKLOADS},
            label_selector=f"{kueue.JOB_UID_LABEL}={uid}",
            timeout_s=_OUTAGE_TIMEOUT_S,
        )
        for workload in listed["items"]:
            conditions = workload.get("status", {}).get("conditions", [])
            waiting = [each for each in conditions if each["type"] == "QuotaReserved" and each["status"] == "False"]
            reason = " ".join(waiting[0].get("message", "").split()) if waiting else ""
            return Workload(workload["metadata"]["uid"], reason)
        return None

    def log(self, pod: str, previous: bool) -> str:
        """Return the end of the log of a container's current or previous run, or why it cannot be read."""
        call = self._core.read_namespaced_pod_log
        options: dict[str, Any] = {
            "container": self.kind.container, "tail_lines": _MAX_LOG_LINES, "previous": previous,
            "timeout_s": _LOG_TIMEOUT_S, "request_timeout_s": _LOG_REQUEST_TIMEOUT_S, "log": logger.debug,
        }  # fmt: skip
        try:
            return str(call_with_retry(f"read log of {pod}", call, pod, self.namespace, **options))
        except (client.ApiException, InputError) as error:
            reason = api_message(error) if isinstance(error, client.ApiException) else str(error)
            return f"(its log cannot be read: {reason})"

    def _list(self, action: str, call: Callable[..., Any], **options: Any) -> tuple[list[Any], str]:
        """Return all objects of a list, page by page, and its resource version."""
        page_size: int | None = _PAGE_SIZE
        items: list[Any] = []
        token = None
        while True:
            page = self._call(
                action, call, absent=410, **options, limit=page_size, _continue=token, timeout_s=_OUTAGE_TIMEOUT_S
            )
            if page is None:  # etcd was compacted, so the next page is gone
                page_size = token = None
                items = []
                continue
            items += page.items
            token = page.metadata._continue
            if not token:
                return items, str(page.metadata.resource_version)

    def _try(self, call: Callable[..., Any], **options: Any) -> Any:
        """Send one request about the job; returns None if the job does not exist."""
        try:
            return call(**self._resource, name=self.name, _request_timeout=_SINGLE_REQUEST_TIMEOUT_S, **options)
        except client.ApiException as error:
            if is_absent(error):
                return None
            raise

    def _call_about_job(self, action: str, call: Callable[..., Any], **options: Any) -> Any:
        """Make a call about the job; returns None if the job does not exist."""
        return self._call(action, call, absent=404, **self._resource, name=self.name, **options)

    def _call(self, action: str, call: Callable[..., Any], absent: int | None = None, **options: Any) -> Any:
        """Make a call; returns None for the status `absent`, and reports other errors in one line."""
        action = f"{action} job {self.name}"
        try:
            return call_with_retry(action, call, denial_timeout_s=self.denial_timeout_s, **options)
        except client.ApiException as error:
            if error.status == absent and (absent != 404 or is_absent(error)):
                return None
            raise explain(action, error, f"is {self.kind.operator} installed?") from error
