"""Status of a job, its pods and their events, as text."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple

from rarft.cluster.job_kind import JobKind
from rarft.cluster.log_excerpt import log_excerpt
from rarft.errors import EXIT_BAD_INPUT

_STARTING_REASONS = {"ContainerCreating", "PodInitializing"}  # any other reason to wait is a problem
# Termination message that `rarft` writes: exit code, command, cause.
_TERMINATION_MESSAGE = re.compile(r"(?P<code>\d+) (?P<cause>[a-z_-]+: .+)")
# torchrun's report about the first process that failed, if that process wrote no message.
_TORCHRUN_REPORT = re.compile(r"Root Cause.*?rank\s*:\s*(?P<rank>\d+).*?exitcode\s*:\s*(?P<code>-?\d+)", re.DOTALL)
_SAME_CAUSE_WINDOW_S = 120.0  # containers that fail within this time of each other have one cause


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


class JobState(NamedTuple):
    """State of a job, and the operator's message about it."""

    name: str  # Queued, Suspended, Pending, Running, Succeeded, Failed, or another condition of the operator
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.name}: {self.detail}" if self.detail else self.name


def job_state(kind: JobKind, job: dict[str, Any], pods: Sequence[Any], nodes: int, is_queued: bool) -> JobState:
    """Return a job's state from its conditions; from its pods if there is none, as for a TrainJob that runs.

    Args:
        kind: Kind of the job.
        job: The job.
        pods: Its pods.
        nodes: Its number of nodes.
        is_queued: Whether Kueue decides when it runs.
    """
    conditions = {
        each["type"]: _one_line(each.get("message"))
        for each in job.get("status", {}).get("conditions") or []
        if each["status"] == "True" and each["type"] != "Suspended"  # the spec shows it without delay
    }
    for condition, state in ((kind.succeeded, "Succeeded"), ("Failed", "Failed")):
        if condition in conditions:
            return JobState(state, conditions[condition])
    if kind.is_suspended(job):
        return JobState("Queued" if is_queued else "Suspended")
    if conditions:
        return JobState(*list(conditions.items())[-1])
    phases = Counter(pod.status.phase for pod in pods)
    if phases["Succeeded"] >= nodes:
        return JobState("Succeeded")
    return JobState("Running" if phases["Running"] else "Pending")


@dataclass(frozen=True)
class ContainerTermination:
    """Failure of a container."""

    pod: str
    finished_at: datetime
    exit_code: int
    reason: str  # Kubernetes' reason, such as Error, OOMKilled, Evicted
    message: str  # what `rarft` wrote; otherwise the end of the log
    restarted: bool

    @property
    def is_bad_input(self) -> bool:
        """Return True if only the user can fix the cause."""
        message = _TERMINATION_MESSAGE.match(self.message)
        return message is not None and int(message["code"]) == EXIT_BAD_INPUT

    @property
    def cause(self) -> str:
        """Cause from `rarft`'s message; otherwise from torchrun's report, or the last line of the log."""
        if (message := _TERMINATION_MESSAGE.match(self.message)) is not None:
            return message["cause"].splitlines()[0].strip()
        if (report := _TORCHRUN_REPORT.search(self.message)) is not None:
            code = int(report["code"])
            return f"rank {report['rank']} ended {f'by signal {-code}' if code < 0 else f'with exit code {code}'}"
        lines = [line.strip() for line in log_excerpt(self.message) if re.search(r"\w", line)]
        return lines[-1] if lines else ""

    def __str__(self) -> str:
        cause = f": {self.cause}" if self.cause else ""
        return f"{self.pod} exited with code {self.exit_code} ({self.reason}){cause}"


def _evicted_at(pod: Any, end: Any) -> datetime:
    """Return when Kubernetes decided to end a pod, which is before its container ended."""
    for condition in pod.status.conditions or []:
        if condition.type == "DisruptionTarget" and condition.last_transition_time:
            return condition.last_transition_time
    return (end.finished_at if end is not None else None) or datetime.now(UTC)


def terminations(pod: Any, container: str) -> Iterator[ContainerTermination]:
    """Yield the failures of a pod's container that the pod's status still contains, at most one per run of it."""
    name, created_at = pod.metadata.name, pod.metadata.creation_timestamp
    statuses = [status for status in pod.status.container_statuses or [] if status.name == container]
    ends = [
        (state.terminated, restarted)
        for status in statuses
        for state, restarted in ((status.last_state, True), (status.state, False))
        if state is not None and state.terminated is not None
    ]
    if pod.status.reason:  # of the pod, such as Evicted; it is the cause of the container's end
        end = next((end for end, restarted in ends if not restarted), None)
        code, message = (end.exit_code if end is not None else 0) or 137, pod.status.message or ""
        yield ContainerTermination(name, _evicted_at(pod, end), code, pod.status.reason, message, restarted=False)
        ends = [(end, restarted) for end, restarted in ends if restarted]
    for end, restarted in ends:
        if end.exit_code:
            finished_at, reason = end.finished_at or created_at, end.reason or "Error"
            yield ContainerTermination(name, finished_at, end.exit_code, reason, end.message or "", restarted)


def root_cause(failures: Iterable[ContainerTermination]) -> ContainerTermination | None:
    """Return the first of the containers that failed last together; the other failures are consequences."""
    first = None
    for failure in sorted(failures, key=lambda each: each.finished_at, reverse=True):
        if first is not None and (first.finished_at - failure.finished_at).total_seconds() > _SAME_CAUSE_WINDOW_S:
            break
        first = failure
    return first


def _waiting_reasons(pod: Any) -> Iterator[str]:
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            yield f"{condition.reason}: {condition.message}"
    statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
    for status in statuses:
        waiting = status.state.waiting if status.state is not None else None
        if waiting is not None and waiting.reason and waiting.reason not in _STARTING_REASONS:
            yield f"{waiting.reason}: {waiting.message or 'no details'}"


def pod_summaries(pods: Sequence[Any]) -> dict[str, str]:
    """Return a line per pod, by its name: phase, restarts, and what it waits for."""
    lines = {}
    for pod in pods:
        waiting = "; ".join(_one_line(reason) for reason in _waiting_reasons(pod))
        restarts = sum(status.restart_count for status in pod.status.container_statuses or [])
        restarted = f", restarted {restarts} times" if restarts else ""
        lines[pod.metadata.name] = f"{pod.status.phase}{restarted}{f': {waiting}' if waiting else ''}"
    return lines


def event_time(event: Any) -> datetime | None:
    """Return when an event occurred last; None if it is not known."""
    time: datetime | None = event.last_timestamp or event.event_time or event.metadata.creation_timestamp
    return time


def event_summary(event: Any) -> str:
    """Return an event as one line."""
    return f"{event.involved_object.name}: {event.reason}: {_one_line(event.message)}"
