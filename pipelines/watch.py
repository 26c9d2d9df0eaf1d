"""`rarft watch`: follow a run on Kubeflow Pipelines to its end."""

import logging
import re
import time
from functools import partial
from typing import Any

import kfp_server_api
from urllib3.exceptions import HTTPError

from pipelines.endpoint import TOKEN_ENV, Endpoint, open_endpoint
from pipelines.run_steps import FINAL_STATES, Step, format_state, run_error, run_steps
from rarft import steps
from rarft.errors import EXIT_INTERRUPTED, ChildFailedError, InputError, one_line

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 5.0
_OUTAGE_TIMEOUT_S = 24 * 3600.0  # the run continues while the API or the network is down
_DENIED_TIMEOUT_S = 300.0  # a proxy may reject requests while it restarts
_REMINDER_INTERVAL_S = 600.0  # between two lines about what does not change
_LOG_LINES = 30
_DEFAULT_NAMESPACE = "kubeflow"  # of the pods, on a single-user server
_NOT_FOUND_CODE = 5  # of gRPC


def _is_not_found(error: kfp_server_api.ApiException) -> bool:
    """Check whether the API itself states that a run does not exist; a proxy's 404 does not count."""
    return error.status == 404 and re.search(rf'"code": ?{_NOT_FOUND_CODE}\b', str(error.body)) is not None


def _describe(error: Exception) -> str:
    if isinstance(error, kfp_server_api.ApiException) and error.status:
        return f"{error.status} {error.reason or ''}".strip()
    return one_line(error)


class _NoRunError(Exception):
    """A response that is not a run, such as a login page."""

    def __str__(self) -> str:
        return "the response is not a run; is there a login page?"


class RunWatcher:
    """Follows one run and logs what changes."""

    def __init__(self, endpoint: Endpoint, run_id: str, namespace: str | None) -> None:
        self._endpoint, self._run_id, self._namespace = endpoint, run_id, namespace
        self._lines: dict[str, str] = {}  # last logged line per subject
        self._logged_at = time.monotonic()
        self._pods: Any = None
        self._watches_pods = True

    def run(self, started_here: bool = False) -> None:
        """Follow the run to its end.

        Args:
            started_here: Whether the API has just started the run, so that its errors are temporary.

        Raises:
            ChildFailedError: The run failed, was canceled or was deleted.
            InputError: There is no such run, or the API can no longer be read.
        """
        run = self._next() if started_here else self._first()
        logger.info("run %s: %s", self._run_id, self._endpoint.run_page(self._run_id))
        while True:
            found = run_steps(run)
            self._log("run", f"run {self._run_id}: {format_state(run.state)}")
            for step in found:
                self._log(step.name, str(step))
            if format_state(run.state) in FINAL_STATES:
                return self._finish(run, found)
            self._log_pods(run, found)
            time.sleep(_POLL_INTERVAL_S)
            run = self._next()

    def _get(self) -> Any:
        run = self._endpoint.get_run(self._run_id)
        if run.run_id != self._run_id:
            raise _NoRunError
        return run

    def _first(self) -> Any:
        try:
            return self._get()
        except kfp_server_api.ApiException as error:
            if error.status in (401, 403):
                raise InputError(f"{self._endpoint.url}: {_describe(error)}; set {TOKEN_ENV}") from error
            if _is_not_found(error):
                raise InputError(f"run {self._run_id}: not found{self._hint()}") from error
            return self._next()
        except (HTTPError, OSError, _NoRunError):
            return self._next()

    def _hint(self) -> str:
        """Return the ID of a run of this display name, or of the newest run, as a hint."""
        try:
            runs = list(self._endpoint.runs(self._namespace))
        except (kfp_server_api.ApiException, HTTPError, OSError):
            return "; copy the ID from the run's page"
        for run in runs:
            if run.display_name == self._run_id:
                return f"; the newest run of this name has the ID {run.run_id}"
        return f"; the newest run is {runs[0].run_id} ({runs[0].display_name})" if runs else "; there are no runs"

    def _next(self) -> Any:
        """Return the run, after the API answers again."""
        start, reason = time.monotonic(), ""
        while True:
            try:
                run = self._get()
            except (kfp_server_api.ApiException, HTTPError, OSError, _NoRunError) as error:
                status = getattr(error, "status", None)
                if isinstance(error, kfp_server_api.ApiException) and _is_not_found(error):
                    raise ChildFailedError(f"run {self._run_id}: deleted while it was watched") from error
                is_denied = status in (401, 403) or isinstance(error, _NoRunError)
                timeout = _DENIED_TIMEOUT_S if is_denied else _OUTAGE_TIMEOUT_S
                if time.monotonic() - start > timeout:
                    hint = f"set {TOKEN_ENV}" if is_denied else "check the network"
                    raise InputError(
                        f"{self._endpoint.url}: {_describe(error)} for {timeout:.0f} s; the run continues; {hint} and "
                        "watch it again"
                    ) from error
                if _describe(error) != reason:
                    reason = _describe(error)
                    logger.warning("%s: %s; retrying, the run continues", self._endpoint.url, reason)
                time.sleep(_POLL_INTERVAL_S)
            else:
                if reason:
                    logger.info("%s: answers again", self._endpoint.url)
                return run

    def _log(self, subject: str, line: str, remind: bool = False) -> None:
        is_new = self._lines.get(subject) != line
        if is_new or remind:
            logger.info("%s%s", line, "" if is_new else " (unchanged)")
            self._lines[subject] = line
            self._logged_at = time.monotonic()

    def _connect_pods(self, run: Any) -> Any:
        """Return the reader of the run's pods; None without a cluster."""
        if self._pods is None and self._watches_pods:
            try:
                self._pods = steps.run_pods(self._run_id, self._pod_namespace(run))
            except InputError as error:
                self._watches_pods = False
                self._log("pods", f"pods: what a pending step waits for is not shown: {one_line(error)}")
        return self._pods

    def _pod_namespace(self, run: Any) -> str:
        if self._namespace is None and run.experiment_id:
            try:
                self._namespace = self._endpoint.experiment_namespace(run.experiment_id)
            except (kfp_server_api.ApiException, HTTPError, OSError):
                logger.debug("the namespace of experiment %s cannot be read", run.experiment_id)
        return self._namespace or _DEFAULT_NAMESPACE

    def _list_pods(self, run: Any) -> list[Any]:
        pods = self._connect_pods(run)
        if pods is None:
            return []
        try:
            found: list[Any] = pods.read()
        except InputError as error:
            self._log("pods", f"pods: what a pending step waits for is not shown: {one_line(error)}")
            return []
        if found:
            self._lines.pop("pods", None)
        return found

    def _log_pods(self, run: Any, found: list[Step]) -> None:
        """Log what the pods of steps wait for, and failed attempts of steps that are retried."""
        is_waiting = any(step.state == "Pending" for step in found) or not found
        pods = self._list_pods(run)
        remind = is_waiting and time.monotonic() - self._logged_at > _REMINDER_INTERVAL_S
        for pod in pods:
            driver = "driver of " if pod.is_driver else ""
            if pod.waiting or pod.failure:
                self._log(
                    f"pod {pod.name}",
                    f"{driver}step {pod.step}: pod {pod.failure or f'{pod.name}: {pod.waiting}'}",
                    remind,
                )
        if self._pods is not None and is_waiting and not pods and "pods" not in self._lines and found:
            namespace = self._pods.namespace
            self._log("pods", f"pods: none of this run in namespace {namespace}; set --namespace to the run's")

    def _finish(self, run: Any, found: list[Step]) -> None:
        state = format_state(run.state)
        if state == "Succeeded":
            return
        page = self._endpoint.run_page(self._run_id)
        failed = [step for step in found if step.state == "Failed"]
        if state == "Failed" and failed:
            cause = self._report_failure(run, failed[0])
            raise ChildFailedError(f"run {self._run_id} failed: step {failed[0].name}: {cause}; see {page}")
        detail = f": {run_error(run)}" if run_error(run) else ""
        raise ChildFailedError(f"run {self._run_id}: {state}{detail}; see {page}")

    def _report_failure(self, run: Any, step: Step) -> str:
        """Log the last lines of a step, and return the cause of its failure."""
        pods = [pod for pod in self._list_pods(run) if pod.step == step.name and pod.failure]
        pod = pods[-1].name if pods else step.pod
        lines = self._last_lines(pod) if pod else []
        for line in lines:
            logger.info("%s | %s", step.name, line)
        if pods and pods[-1].cause:
            return str(pods[-1].cause)
        causes = [line for line in lines if line.startswith("rarft ")]
        if causes:
            return causes[-1]
        return (pods[-1].failure if pods else "") or step.error or (lines[-1].strip() if lines else "no details")

    def _last_lines(self, pod: str) -> list[str]:
        """Return the last lines of a pod's log, from the cluster or from the API, or why they cannot be read."""
        readers = [partial(self._endpoint.log_lines, self._run_id)]
        if self._pods is not None:
            readers.insert(0, self._pods.log_lines)
        reasons = []
        for read in readers:
            try:
                return read(pod, _LOG_LINES)
            except InputError as error:
                reasons.append(one_line(error))
        logger.warning("%s", "; ".join(reasons))
        return []


def watch(run: str, endpoint: str, namespace: str | None = None, started_here: bool = False) -> None:
    """Follow a run to its end.

    Args:
        run: ID of the run, or the URL of its page.
        endpoint: URL of the Kubeflow Pipelines API.
        namespace: Namespace of the run; default: that of its experiment, or kubeflow.
        started_here: Whether the API has just started the run.

    Raises:
        ChildFailedError: The run failed, was canceled or was deleted.
        InputError: There is no such run, or the API can no longer be read.
        SystemExit: Code 130 after Ctrl-C; the run continues.
    """
    run_id = run.rstrip("/").rpartition("/")[2]
    server = open_endpoint(endpoint)
    if not started_here:
        server.check()
    try:
        RunWatcher(server, run_id, namespace).run(started_here)
    except KeyboardInterrupt:
        logger.info("the run continues; watch it again with `rarft watch %s --endpoint %s`", run_id, server.url)
        raise SystemExit(EXIT_INTERRUPTED) from None
