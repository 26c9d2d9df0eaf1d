"""Log of a job's progress: changes of its state and pods, warning events, and failed containers with their logs."""

import logging
import time
from datetime import datetime
from typing import Any

from kubernetes import client
from urllib3.exceptions import HTTPError

from rarft.cluster import job_status
from rarft.cluster.job_client import JobClient
from rarft.cluster.job_status import ContainerTermination, JobState
from rarft.cluster.log_excerpt import log_excerpt
from rarft.errors import ChildFailedError, InputError

logger = logging.getLogger(__name__)

_POLL_INTERVAL_S = 15  # for events and queues; a change of a pod is noticed immediately
_MIN_POLL_INTERVAL_S = 2.0
_REMINDER_INTERVAL_S = 600.0  # between two lines about a state that does not change


class JobMonitor:
    """Observes a job and logs what changes. Pods and events of an earlier job of its name are ignored."""

    def __init__(self, jobs: JobClient, job: dict[str, Any], nodes: int, is_queued: bool) -> None:
        self.failures: list[ContainerTermination] = []  # of the job's pods, including deleted ones
        self._jobs, self._nodes, self._is_queued = jobs, nodes, is_queued
        self._uid = str(job["metadata"]["uid"])
        self._created_at = datetime.fromisoformat(job["metadata"]["creationTimestamp"])
        self._uids = {self._uid}  # of the objects whose events are logged
        self._children = {(kind, name.format(jobs.name)) for kind, name in jobs.kind.children}  # as well
        self._lines: dict[str, str] = {}  # last logged line per subject
        self._logged_at = time.monotonic()
        self._events: set[str] = set()
        self._known: set[tuple[str, Any]] = set()  # failures
        self._version: str | None = None  # resource version from which pods are watched
        self._interruption = ""  # of the watch, until the next change

    def observe(self, job: dict[str, Any]) -> JobState:
        """Log what changed since the last call; return the job's state."""
        pods = self._pods()
        state = job_status.job_state(self._jobs.kind, job, pods, self._nodes, self._is_queued)
        if state.name == "Queued":
            state = JobState("Queued", self._queue_reason())
        self._log_changes(state, pods)
        self._log_events()
        return state

    def wait_for_change(self) -> None:
        """Return when a pod changes, or after a poll interval."""
        start = time.monotonic()
        try:
            for pod in self._jobs.watch_pods(self._version, _POLL_INTERVAL_S):
                # The next watch starts here, so that a pod that fails and is deleted in between is not missed.
                self._version = pod.metadata.resource_version
                self._note_failures(pod)
                self._interruption = ""
                break
        except client.ApiException as error:
            self._version = None  # too old, for example: start from the next list of pods
            self._log_interruption(str(error.status))
        except (HTTPError, OSError) as error:
            self._log_interruption(type(error).__name__)
        time.sleep(max(0.0, _MIN_POLL_INTERVAL_S - (time.monotonic() - start)))

    def failure(self, state: JobState) -> Exception:
        """Return the error to raise for a failed job; it names the container that failed first."""
        first = job_status.root_cause(self.failures)
        if first is None:
            return ChildFailedError(f"job {self._jobs.name} failed: {state.detail or 'no details'}")
        text = f"job {self._jobs.name} failed: {first}"
        return InputError(text) if first.is_bad_input else ChildFailedError(text)

    def _pods(self) -> list[Any]:
        """Return the job's pods, after a check for failed containers."""
        pods, version = self._jobs.pods()
        self._version = self._version or version
        pods = [pod for pod in pods if self._is_own(pod)]
        for pod in pods:
            self._note_failures(pod)
        return pods

    def _is_own(self, pod: Any) -> bool:
        """Return False for a pod of an earlier job that still ends."""
        return bool(pod.metadata.creation_timestamp >= self._created_at)

    def _note_failures(self, pod: Any) -> None:
        """Log new failures of a pod's container at once, because the operator deletes failed pods."""
        if not self._is_own(pod):
            return
        self._uids.add(pod.metadata.uid)
        for failure in job_status.terminations(pod, self._jobs.kind.container):
            key = (pod.metadata.uid, failure.reason if failure.reason == pod.status.reason else failure.finished_at)
            if key in self._known:
                continue
            self._known.add(key)
            self.failures.append(failure)
            for line in log_excerpt(self._jobs.log(failure.pod, previous=failure.restarted)):
                logger.info("%s | %s", failure.pod, line)
            logger.warning("pod %s", failure)

    def _queue_reason(self) -> str:
        """Return why Kueue does not admit the job; its events are logged from now on."""
        workload = self._jobs.workload(self._uid)
        if workload is None:
            return ""
        self._uids.add(workload.uid)
        return workload.reason

    def _log_interruption(self, reason: str) -> None:
        if reason != self._interruption:
            logger.info("job %s: watch interrupted (%s); reconnecting", self._jobs.name, reason)
            self._interruption = reason

    def _log_changes(self, state: JobState, pods: list[Any]) -> None:
        lines = {f"job {self._jobs.name}": str(state)}
        lines |= {f"pod {name}": line for name, line in job_status.pod_summaries(pods).items()}
        is_waiting = state.name not in ("Running", "Succeeded")
        remind = is_waiting and time.monotonic() - self._logged_at > _REMINDER_INTERVAL_S
        for subject, line in lines.items():
            unchanged = self._lines.get(subject) == line
            if remind or not unchanged:
                logger.info("%s: %s%s", subject, "still " if unchanged else "", line)
                self._logged_at = time.monotonic()
        self._lines = lines

    def _log_events(self) -> None:
        for event in self._jobs.warnings():
            about, at = event.involved_object, job_status.event_time(event)
            is_own = about.uid in self._uids or (about.kind, about.name) in self._children
            line = job_status.event_summary(event)
            if is_own and (at is None or at >= self._created_at) and line not in self._events:
                self._events.add(line)
                logger.warning("event: %s", line)
