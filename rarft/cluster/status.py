"""What can be seen of a job, its pods and their events, as lines for a person."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from rarft.errors import EXIT_BAD_INPUT

_FINAL = {"Succeeded", "Failed"}
_STARTING_REASONS = {"ContainerCreating", "PodInitializing"}  # all else that a container waits for is a problem
# What `rarft` leaves as the termination message: exit code, command, cause.
_LEFT = re.compile(r"(?P<code>\d+) (?P<cause>[a-z_-]+: .+)")
# torchrun's account of the process that failed first, where that could say nothing itself.
_ROOT_CAUSE = re.compile(r"Root Cause.*?rank\s*:\s*(?P<rank>\d+).*?exitcode\s*:\s*(?P<code>-?\d+)", re.DOTALL)
_SAME_CAUSE_WINDOW_S = 120.0  # containers that end within so many seconds of each other died of one cause


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
class ContainerTermination:
    """How a container ended.

    Args:
        pod: its pod's name.
        at: when.
        code: exit code.
        reason: such as Error, OOMKilled, Evicted.
        message: termination message: what `rarft` left, else the end of the log.
        before: whether another start of the container has followed.
    """

    pod: str
    at: datetime
    code: int
    reason: str
    message: str
    before: bool

    @property
    def is_bad_input(self) -> bool:
        """Whether it ended for what only the user can mend."""
        left = _LEFT.match(self.message)
        return left is not None and int(left["code"]) == EXIT_BAD_INPUT

    @property
    def cause(self) -> str:
        """What it died of, as it said itself, or as torchrun says of the rank that failed first."""
        if (left := _LEFT.match(self.message)) is not None:
            return left["cause"].splitlines()[0].strip()
        if (root := _ROOT_CAUSE.search(self.message)) is not None:
            code = int(root["code"])
            return f"rank {root['rank']} ended {f'by signal {-code}' if code < 0 else f'with exit code {code}'}"
        lines = [line.strip() for line in self.message.splitlines() if re.search(r"\w", line)]
        return lines[-1] if lines else ""

    def __str__(self) -> str:
        return f"{self.pod} ended with exit code {self.code} ({self.reason}){': ' if self.cause else ''}{self.cause}"


def endings(pod: Any, container: str) -> Iterator[ContainerTermination]:
    """How a pod's container has ended badly, so far as the pod remembers."""
    name, made = pod.metadata.name, pod.metadata.creation_timestamp
    if pod.status.reason:  # of the pod as a whole, such as Evicted
        yield ContainerTermination(name, made, 137, pod.status.reason, pod.status.message or "", before=False)
    for status in pod.status.container_statuses or []:
        if status.name != container:
            continue
        for state, before in ((status.last_state, True), (status.state, False)):
            if state is not None and (end := state.terminated) is not None and end.exit_code:
                at = end.finished_at or made
                yield ContainerTermination(name, at, end.exit_code, end.reason or "Error", end.message or "", before)


def root_cause(found: Iterable[ContainerTermination]) -> ContainerTermination | None:
    """Of the containers that ended last together, the first: the others died of its death."""
    chosen = None
    for ending in sorted(found, key=lambda each: each.at, reverse=True):
        if chosen is not None and (chosen.at - ending.at).total_seconds() > _SAME_CAUSE_WINDOW_S:
            break
        chosen = ending
    return chosen


def _waits(pod: Any) -> Iterator[str]:
    for condition in pod.status.conditions or []:
        if condition.type == "PodScheduled" and condition.status == "False":
            yield f"{condition.reason}: {condition.message}"
    statuses = [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]
    for status in statuses:
        waiting = status.state.waiting if status.state is not None else None
        if waiting is not None and waiting.reason and waiting.reason not in _STARTING_REASONS:
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


def event_lines(events: Sequence[Any], names: Sequence[str]) -> list[str]:
    """A line for each kind of event about the job or its pods."""
    return list(
        dict.fromkeys(
            f"{event.involved_object.name}: {event.reason}: {' '.join((event.message or '').split())}"
            for event in events
            if event.involved_object.name in names
        )
    )
