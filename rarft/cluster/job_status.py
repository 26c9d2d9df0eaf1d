"""Status of a job, its pods and their events, as text."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rarft.errors import EXIT_BAD_INPUT

_FINAL_STATES = {"Succeeded", "Failed"}
_STARTING_REASONS = {"ContainerCreating", "PodInitializing"}  # any other reason to wait is a problem
# Termination message that `rarft` writes: exit code, command, cause.
_TERMINATION_MESSAGE = re.compile(r"(?P<code>\d+) (?P<cause>[a-z_-]+: .+)")
# torchrun's report about the first process that failed, if that process wrote no message.
_TORCHRUN_REPORT = re.compile(r"Root Cause.*?rank\s*:\s*(?P<rank>\d+).*?exitcode\s*:\s*(?P<code>-?\d+)", re.DOTALL)
_SAME_CAUSE_WINDOW_S = 120.0  # containers that fail within this time of each other have one cause


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _newest_condition(job: dict[str, Any]) -> dict[str, Any] | None:
    conditions = [entry for entry in job.get("status", {}).get("conditions") or [] if entry["status"] == "True"]
    return conditions[-1] if conditions else None


def job_state(job: dict[str, Any]) -> str:
    """Return a job's newest true condition; `Queued` while the job is suspended, `Pending` without a condition."""
    condition = _newest_condition(job)
    state: str = condition["type"] if condition else "Pending"
    if state in _FINAL_STATES:
        return state
    suspended = job["spec"].get("runPolicy", {}).get("suspend", False)
    return "Queued" if suspended or state == "Suspended" else state


def job_message(job: dict[str, Any]) -> str:
    """Return the message of a job's newest true condition."""
    condition = _newest_condition(job)
    return _one_line(condition.get("message")) if condition else ""


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
        lines = [line.strip() for line in self.message.splitlines() if re.search(r"\w", line)]
        return lines[-1] if lines else ""

    def __str__(self) -> str:
        cause = f": {self.cause}" if self.cause else ""
        return f"{self.pod} exited with code {self.exit_code} ({self.reason}){cause}"


def terminations(pod: Any, container: str) -> Iterator[ContainerTermination]:
    """Yield the failures of a pod's container that the pod's status still contains."""
    name, created_at = pod.metadata.name, pod.metadata.creation_timestamp
    if pod.status.reason:  # of the pod, such as Evicted
        yield ContainerTermination(name, created_at, 137, pod.status.reason, pod.status.message or "", restarted=False)
    for status in pod.status.container_statuses or []:
        if status.name != container:
            continue
        for state, restarted in ((status.last_state, True), (status.state, False)):
            if state is not None and (end := state.terminated) is not None and end.exit_code:
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


def event_summaries(events: Sequence[Any], names: Sequence[str]) -> list[str]:
    """Return a line per distinct event about the objects of these names."""
    lines = (
        f"{event.involved_object.name}: {event.reason}: {_one_line(event.message)}"
        for event in events
        if event.involved_object.name in names
    )
    return list(dict.fromkeys(lines))
