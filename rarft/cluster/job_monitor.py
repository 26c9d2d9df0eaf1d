"""Log of a job's progress: changes of its state and pods, warning events, and failed containers with their logs."""

import logging
import time
from typing import Any

from kubernetes import client
from urllib3.exceptions import HTTPError

from rarft.cluster import job_status
from rarft.cluster.client import permission_error
from rarft.cluster.job_client import JobClient
from rarft.cluster.pod_spec import CONTAINER
from rarft.errors import ChildFailedError, InputError

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 15  # for events and queues; a change of a pod is noticed immediately
_MIN_POLL_INTERVAL_S = 2.0
_REMINDER_INTERVAL_S = 600.0  # between two lines about a state that does not change
_LOG_LINES = 30  # per failed container


class JobMonitor:
    """Observes a job and logs what changes."""

    def __init__(self, jobs: JobClient, suspended_by_queue: bool) -> None:
        self.failures: list[job_status.ContainerTermination] = []  # of the job's pods, including deleted ones
        self._jobs, self._suspended_by_queue = jobs, suspended_by_queue
        self._lines: dict[str, str] = {}  # last logged line per subject
        self._logged_at = time.monotonic()
        self._events: set[str] = set()
        self._known: set[tuple[str, Any]] = set()  # failures, as (pod's uid, time)
        self._version: str | None = None  # resource version from which pods are watched
        self._collects_failures = False

    def check_permissions(self) -> None:
        """Make the calls that monitoring needs; failures of an earlier job of this name are ignored from then on."""
        self._log_events(self.pods())

    def start(self) -> None:
        """Collect failures of containers from now on."""
        self._collects_failures = True

    def observe(self, job: dict[str, Any]) -> None:
        """Log what changed since the last call."""
        pods = self.pods()
        self._log_changes(job, pods)
        self._log_events(pods)

    def pods(self) -> list[Any]:
        """Return the job's pods, after a check for failed containers."""
        pods, version = self._jobs.pods()
        self._version = self._version or version
        for pod in pods:
            self._note_failures(pod)
        return pods

    def wait_for_change(self) -> None:
        """Return when a pod changes, or after a poll interval."""
        start = time.monotonic()
        try:
            for pod in self._jobs.watch_pods(self._version, _POLL_INTERVAL_S):
                # The next watch starts here, so that a pod that fails and is deleted in between is not missed.
                self._version = pod.metadata.resource_version
                self._note_failures(pod)
                break
        except client.ApiException as error:
            if error.status in (401, 403):
                raise permission_error(f"watch pods of job {self._jobs.name}", error) from error
            self._version = None  # too old, for example: start from the next list of pods
        except (HTTPError, OSError) as error:
            logger.info("job %s: watch interrupted (%s); reconnecting", self._jobs.name, type(error).__name__)
        time.sleep(max(0.0, _MIN_POLL_INTERVAL_S - (time.monotonic() - start)))

    def failure(self, job: dict[str, Any]) -> Exception:
        """Return the error to raise for a failed job; it names the container that failed first."""
        first = job_status.root_cause(self.failures)
        if first is None:
            return ChildFailedError(f"job {self._jobs.name} failed: {job_status.job_message(job) or 'no details'}")
        text = f"job {self._jobs.name} failed: {first}"
        return InputError(text) if first.is_bad_input else ChildFailedError(text)

    def _note_failures(self, pod: Any) -> None:
        """Log new failures of a pod's container at once, because the operator deletes failed pods."""
        for failure in job_status.terminations(pod, CONTAINER):
            key = (pod.metadata.uid, failure.finished_at)
            is_new = key not in self._known
            self._known.add(key)
            if is_new and self._collects_failures:
                self.failures.append(failure)
                for line in self._log_tail(failure):
                    logger.info("%s | %s", failure.pod, line)
                logger.warning("pod %s", failure)

    def _log_tail(self, failure: job_status.ContainerTermination) -> list[str]:
        """Return the last lines of a container's log, without torchrun's report, which can be long."""
        lines = self._jobs.log_lines(failure.pod, previous=failure.restarted)
        reports = [index for index, line in enumerate(lines) if "torch.distributed.elastic" in line]
        return (lines[: reports[0]] if reports and reports[0] else lines)[-_LOG_LINES:]

    def _log_changes(self, job: dict[str, Any], pods: list[Any]) -> None:
        state = job_status.job_state(job)
        if state == "Queued" and not self._suspended_by_queue:
            state = "Resumed"  # the operator has not updated the status yet
        detail = "" if state == "Queued" else job_status.job_message(job)
        lines = {f"job {self._jobs.name}": f"{state}{f': {detail}' if detail else ''}"}
        lines |= {f"pod {name}": line for name, line in job_status.pod_summaries(pods).items()}
        remind = state not in ("Running", "Succeeded") and time.monotonic() - self._logged_at > _REMINDER_INTERVAL_S
        for subject, line in lines.items():
            unchanged = self._lines.get(subject) == line
            if remind or not unchanged:
                logger.info("%s: %s%s", subject, "still " if unchanged else "", line)
                self._logged_at = time.monotonic()
        self._lines = lines

    def _log_events(self, pods: list[Any]) -> None:
        names = [self._jobs.name, *(pod.metadata.name for pod in pods)]
        for line in job_status.event_summaries(self._jobs.warnings(), names):
            if line not in self._events:
                self._events.add(line)
                logger.warning("event: %s", line)
