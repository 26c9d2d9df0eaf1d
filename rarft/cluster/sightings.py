"""What can be seen of a job, its pods and their events, as lines for a person."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rarft.errors import EXIT_BAD_INPUT

# Kueue suspends a job until there is room; the operator then says so as a condition.
_FINAL = {"Succeeded", "Failed"}
_WAITING_IS_NEWS = {"ContainerCreating", "PodInitializing"}  # on the way; everything else that a container waits for
# is a problem


def state_of(job: dict[str, Any]) -> str:
    """The state of a job: its newest condition that holds; `Queued` while it is suspended."""
    conditions = [entry for entry in job.get("status", {}).get("conditions") or [] if entry["status"] == "True"]
    newest: str = conditions[-1]["type"] if conditions else "Pending"
    if newest in _FINAL:
        return newest
    suspended = job["spec"].get("runPolicy", {}).get("suspend", False)
    return "Queued" if suspended or newest == "Suspended" else newest


def message_of_state(job: dict[str, Any]) -> str:
    """What the operator says of that state."""
    conditions = [entry for entry in job.get("status", {}).get("conditions") or [] if entry["status"] == "True"]
    return " ".join((conditions[-1].get("message") or "").split()) if conditions else ""


@dataclass(frozen=True)
class Ending:
    """How a container ended.

    Args:
        pod: its pod's name.
        at: when, as the API says it.
        code: exit code.
        reason: such as Error, OOMKilled, Evicted.
        message: termination message.
        before: whether another start of the container has followed.
    """

    pod: str
    at: str
    code: int
    reason: str
    message: str
    before: bool

    @property
    def is_bad_input(self) -> bool:
        """Whether it ended for what only the user can mend."""
        return self.message.startswith(f"{EXIT_BAD_INPUT} ")

    @property
    def cause(self) -> str:
        """What it said last, without the exit code in front that `rarft` writes there."""
        lines = self.message.strip().splitlines()
        last = lines[-1].strip() if lines else ""
        head, _, rest = last.partition(" ")
        return rest if head.isdecimal() else last

    def __str__(self) -> str:
        return f"{self.pod} ended with exit code {self.code} ({self.reason}){': ' if self.cause else ''}{self.cause}"


def endings(pods: Sequence[Any]) -> list[Ending]:
    """All containers that ended badly, the first one first."""
    found: list[Ending] = []
    for pod in pods:
        name = pod.metadata.name
        if pod.status.reason:  # of the pod as a whole, such as Evicted
            at = str(pod.metadata.creation_timestamp or "")
            found.append(Ending(name, at, 137, pod.status.reason, pod.status.message or "", before=False))
        for status in pod.status.container_statuses or []:
            for state, before in ((status.last_state, True), (status.state, False)):
                if state is not None and (end := state.terminated) is not None and end.exit_code:
                    at = str(end.finished_at or "")
                    found.append(Ending(name, at, end.exit_code, end.reason or "Error", end.message or "", before))
    return sorted(found, key=lambda ending: ending.at)


def _waits(pod: Any) -> Iterator[str]:
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            yield f"{condition.reason}: {condition.message}"
    statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
    for status in statuses:
        waiting = status.state.waiting if status.state is not None else None
        if waiting is not None and waiting.reason and waiting.reason not in _WAITING_IS_NEWS:
            yield f"{waiting.reason}: {waiting.message or 'no more is said'}"


def pod_lines(pods: Sequence[Any]) -> dict[str, str]:
    """A line a pod: its phase, and what it waits for."""
    lines = {}
    for pod in pods:
        what = "; ".join(" ".join(reason.split()) for reason in _waits(pod))
        restarts = sum(status.restart_count for status in pod.status.container_statuses or [])
        again = f", restarted {restarts} times" if restarts else ""
        lines[pod.metadata.name] = f"{pod.status.phase}{again}{f': {what}' if what else ''}"
    return lines


def event_lines(events: Sequence[Any], names: Sequence[str]) -> dict[str, str]:
    """A line a warning about the job or its pods, by the event's identity and count."""
    return {
        f"{event.metadata.uid} {event.count}": (
            f"{event.involved_object.name}: {event.reason}: {' '.join((event.message or '').split())}"
        )
        for event in events
        if event.type == "Warning" and event.involved_object.name in names
    }
