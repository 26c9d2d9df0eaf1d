"""Steps of a run on Kubeflow Pipelines, from the run as its API returns it.

The API lists the nodes of the Argo workflow. A step `train` is three or more of them: `train-driver`, which prepares
it, `train`, and its child `executor`, which has the children `executor(0)`, `executor(1)`, ... if the step is retried.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

FINAL_STATES = {"Succeeded", "Skipped", "Failed", "Canceled"}
_DRIVER = "-driver"
_ATTEMPT = re.compile(r"executor\(\d+\)")


@dataclass(frozen=True)
class Step:
    """State of a step."""

    name: str
    state: str  # Pending, Running, Succeeded, Skipped, Failed, Canceling, Canceled or Paused
    is_cached: bool = False
    attempts: int = 1
    pod: str = ""  # of the latest attempt; empty if the API does not name it
    error: str = ""
    seconds: float | None = None  # from start to end

    def __str__(self) -> str:
        attempt = f", attempt {self.attempts}" if self.attempts > 1 else ""
        duration = f" after {_format_duration(self.seconds)}" if self.seconds is not None else ""
        if self.state == "Skipped":
            duration = ""
        cached = " (cached)" if self.is_cached else ""
        error = f": {self.error}" if self.error else ""
        return f"step {self.name}: {self.state}{cached or duration}{attempt}{error}"


def _format_duration(seconds: float) -> str:
    hours, minutes = divmod(int(seconds) // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds:.0f} s"


def format_state(state: str | None) -> str:
    """Return a state of the API, such as RUNNING, as it is shown; a run without one is pending."""
    return (state or "PENDING").removeprefix("RUNTIME_STATE_").capitalize()


def run_error(run: Any) -> str:
    """Return the error of a run as one line; empty without one."""
    return _one_line(run.error.message if run.error else "")


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _node_key(pod: str | None) -> str:
    """Return the number at the end of a pod's name, which the name of the workflow's node has, too."""
    return (pod or "").rpartition("-")[2]


class _Nodes:
    """Nodes of a run's workflow."""

    def __init__(self, details: list[Any]) -> None:
        self.by_name = {detail.display_name: detail for detail in details}
        self._by_key = {_node_key(detail.pod_name): detail for detail in details if detail.pod_name}

    def children(self, detail: Any) -> Iterator[Any]:
        """Yield the children of a node that the API names."""
        for child in detail.child_tasks or []:
            if (found := self._by_key.get(_node_key(child.pod_name))) is not None:
                yield found

    def attempts(self, detail: Any) -> list[Any]:
        """Return the attempts of a step, the oldest first."""
        for child in self.children(detail):
            if child.display_name == "executor":
                retried = [each for each in self.children(child) if _ATTEMPT.fullmatch(each.display_name or "")]
                return sorted(retried, key=lambda each: int(re.sub(r"\D", "", each.display_name))) or [child]
        return []


def _names(run: Any, nodes: _Nodes) -> list[str]:
    """Return the names of a run's steps that have started, in the order of their start."""
    drivers = {name for name in nodes.by_name if name and name.endswith(_DRIVER) and name != f"root{_DRIVER}"}
    names = {name.removesuffix(_DRIVER) for name in drivers} | _names_in_spec(run) & nodes.by_name.keys()

    def start(name: str) -> tuple[float, str]:
        detail = nodes.by_name.get(f"{name}{_DRIVER}") or nodes.by_name[name]
        return (detail.start_time.timestamp() if detail.start_time else float("inf"), name)

    return sorted(names, key=start)


def _names_in_spec(run: Any) -> set[str]:
    """Return the names of the tasks in a run's pipeline; empty if the API does not include the pipeline."""
    spec = run.pipeline_spec or {}
    spec = spec.get("pipeline_spec", spec)
    return set(spec.get("root", {}).get("dag", {}).get("tasks", {}))


def _seconds(detail: Any) -> float | None:
    start, end = detail.start_time, detail.end_time
    if not isinstance(start, datetime) or not isinstance(end, datetime) or end < start:
        return None  # a node that has not ended has an end before our era
    return (end - start).total_seconds()


def _unstarted_step(name: str, driver: Any) -> Step:
    """Return a step that only its driver has reached."""
    if format_state(driver.state) != "Failed":
        return Step(name, "Pending")
    message = _one_line(driver.error.message if driver.error else "")
    return Step(name, "Failed", pod=driver.pod_name or "", error=f"its driver failed {message}".strip())


def _step(name: str, nodes: _Nodes) -> Step:
    detail = nodes.by_name.get(name)
    if detail is None:
        return _unstarted_step(name, nodes.by_name[f"{name}{_DRIVER}"])
    attempts = nodes.attempts(detail)
    latest = attempts[-1] if attempts else detail
    state, latest_state = format_state(detail.state), format_state(latest.state)
    if state == "Running" and latest_state == "Pending":
        state = "Pending"
    message = next((_one_line(each.error.message) for each in (latest, detail) if each.error), "")
    return Step(
        name,
        state,
        is_cached=state == "Succeeded" and bool(attempts) and latest_state == "Skipped",
        attempts=max(1, len(attempts)),
        pod=(latest.pod_name or "") if attempts else "",
        error=message if state in ("Failed", "Canceled") else "",
        seconds=_seconds(detail) if state in FINAL_STATES else None,
    )


def run_steps(run: Any) -> list[Step]:
    """Return the steps of a run that have started, in the order of their start.

    Args:
        run: A `kfp_server_api.V2beta1Run`; a new run has no details.
    """
    details = (run.run_details.task_details if run.run_details else None) or []
    nodes = _Nodes(details)
    return [_step(name, nodes) for name in _names(run, nodes)]
