"""API calls about one PyTorchJob: the job itself, its pods, their logs and events."""

from collections.abc import Callable, Iterator
from typing import Any

from kubernetes import client, watch

from rarft.cluster.client import api_message, call_with_retry, connect, current_namespace
from rarft.cluster.pod_spec import CONTAINER, JOB_LABEL
from rarft.cluster.pytorchjob import GROUP, PLURAL, VERSION
from rarft.errors import InputError

_OUTAGE_TIMEOUT_S = 24 * 3600.0  # the API may be down while a job runs: the pipeline step has its own time limit
_LOG_TIMEOUT_S = 10.0  # the log of a lost node must not delay the report of its failure
_MAX_LOG_LINES = 400
_MAX_EVENTS = 500


class JobClient:
    """Calls about the job of one name; all of them raise `PermissionDeniedError` if a permission is missing."""

    def __init__(self, api: client.ApiClient, namespace: str, name: str) -> None:
        self.namespace, self.name = namespace, name
        self._jobs, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        self._resource: dict[str, Any] = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
        self._pods: dict[str, Any] = {"namespace": namespace, "label_selector": f"{JOB_LABEL}={name}"}

    def create(self, manifest: dict[str, Any], should_retry: Callable[[], bool]) -> bool:
        """Create the job; returns False if one of that name exists.

        Raises:
            InputError: The API server rejects the manifest.
        """
        try:
            call_with_retry(
                f"create job {self.name}",
                self._jobs.create_namespaced_custom_object,
                **self._resource,
                body=manifest,
                field_validation="Strict",
                should_retry=should_retry,
            )
        except client.ApiException as error:
            if error.status == 409:
                return False
            if error.status in (400, 404, 422):
                hint = "is the training operator installed?" if error.status == 404 else "check the job's settings"
                raise InputError(f"create job {self.name}: {api_message(error)}; {hint}") from error
            raise
        return True

    def get(self) -> dict[str, Any] | None:
        """Return the job; None if it does not exist."""
        call = self._jobs.get_namespaced_custom_object
        job: dict[str, Any] | None = self._call_if_exists("get", call, timeout_s=_OUTAGE_TIMEOUT_S)
        return job

    def names(self) -> list[str]:
        """Return the names of all jobs in the namespace."""
        listed = call_with_retry("list jobs", self._jobs.list_namespaced_custom_object, **self._resource)
        return sorted(job["metadata"]["name"] for job in listed["items"])

    def resume(self) -> None:
        """Clear the job's `suspend` field; does nothing if the job does not exist."""
        body = {"spec": {"runPolicy": {"suspend": False}}}
        self._call_if_exists("resume", self._jobs.patch_namespaced_custom_object, body=body)

    def delete(self, propagation: str = "Background") -> bool:
        """Delete the job; returns False if it does not exist. `Foreground` keeps it until its pods are gone."""
        call = self._jobs.delete_namespaced_custom_object
        return self._call_if_exists("delete", call, propagation_policy=propagation) is not None

    def try_delete(self) -> None:
        """Send one request to delete the job, without retries."""
        self._jobs.delete_namespaced_custom_object(
            **self._resource, name=self.name, propagation_policy="Background", _request_timeout=5
        )

    def pods(self) -> tuple[list[Any], str]:
        """Return the job's pods, and the resource version to watch them from."""
        action, call = f"list pods of job {self.name}", self._core.list_namespaced_pod
        listed = call_with_retry(action, call, **self._pods, timeout_s=_OUTAGE_TIMEOUT_S)
        return list(listed.items), str(listed.metadata.resource_version)

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
        """Return warning events of the namespace."""
        listed = call_with_retry(
            f"list events of job {self.name}",
            self._core.list_namespaced_event,
            self.namespace,
            field_selector="type=Warning",
            limit=_MAX_EVENTS,
            timeout_s=_OUTAGE_TIMEOUT_S,
        )
        return list(listed.items)

    def log_lines(self, pod: str, previous: bool) -> list[str]:
        """Return the last lines of the log of a container's current or previous run, or why it cannot be read."""
        call = self._core.read_namespaced_pod_log
        options: dict[str, Any] = {"container": CONTAINER, "tail_lines": _MAX_LOG_LINES, "previous": previous}
        try:
            log = call_with_retry(f"read log of {pod}", call, pod, self.namespace, timeout_s=_LOG_TIMEOUT_S, **options)
        except (client.ApiException, InputError) as error:
            reason = api_message(error) if isinstance(error, client.ApiException) else str(error)
            return [f"(its log cannot be read: {reason})"]
        return str(log).splitlines()

    def _call_if_exists(self, action: str, call: Callable[..., Any], **options: Any) -> Any:
        """Make a call about the job; returns None if the job does not exist."""
        try:
            return call_with_retry(f"{action} job {self.name}", call, **self._resource, name=self.name, **options)
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise


def cancel(name: str, namespace: str | None) -> str:
    """Delete a job, by default in the current namespace; return the namespace.

    Raises:
        InputError: There is no such job, or this account may not delete it.
    """
    namespace = namespace or current_namespace()
    jobs = JobClient(connect(), namespace, name)
    if not jobs.delete():
        existing = ", ".join(jobs.names()) or "none"
        raise InputError(f"job {name}: not found in namespace {namespace}; existing jobs: {existing}")
    return namespace
