"""Pods of a pipeline run, by step: what they wait for, how they failed, and their logs."""

import re
from dataclasses import dataclass
from typing import Any

from kubernetes import client
from kubernetes.config import ConfigException
from urllib3.exceptions import HTTPError

from rarft.cluster.api_errors import api_message
from rarft.cluster.client import connect
from rarft.cluster.job_status import event_summary, pod_summaries, terminations
from rarft.errors import InputError

CONTAINER = "main"  # of the component's code, in every pod of a run
_RUN_LABEL = "pipeline/runid"
_NODE_NAME = "workflows.argoproj.io/node-name"  # annotation, such as rarft-x2k8d.root.train.executor(1)
_TIMEOUT_S = (5, 15)  # to connect, and to read the response: the run is watched in the meantime
_MAX_PODS = 500


@dataclass(frozen=True)
class StepPod:
    """One attempt of a step, or of its driver."""

    name: str
    step: str
    is_driver: bool  # which prepares the step
    created_at: Any
    waiting: str  # what it waits for; empty if it does not wait
    failure: str  # how it failed; empty if it did not
    cause: str  # one-line cause of the failure; empty without one


def _step_of(pod: Any) -> tuple[str, bool]:
    """Return the step that a pod belongs to, and whether it is the step's driver."""
    path = (pod.metadata.annotations or {}).get(_NODE_NAME, pod.metadata.name).split(".")
    if re.fullmatch(r"executor(\(\d+\))?", path[-1]) and len(path) > 1:
        return path[-2], False
    step = re.sub(r"\(\d+\)$", "", path[-1])
    return step.removesuffix("-driver"), step.endswith("-driver")


class RunPods:
    """Reads the pods of one run; every method raises `InputError` if it cannot."""

    def __init__(self, run_id: str, namespace: str) -> None:
        self.namespace, self._run_id = namespace, run_id
        self._core = client.CoreV1Api(connect())

    def read(self) -> list[StepPod]:
        """Return the pods, the oldest first."""
        listed = self._call(
            "list pods", self._core.list_namespaced_pod, label_selector=f"{_RUN_LABEL}={self._run_id}", limit=_MAX_PODS
        )
        return [self._describe(pod) for pod in sorted(listed.items, key=lambda pod: pod.metadata.creation_timestamp)]

    def log_lines(self, pod: str, count: int) -> list[str]:
        """Return the last lines of a pod's log."""
        call = self._core.read_namespaced_pod_log
        log = self._call(f"read log of {pod}", call, name=pod, container=CONTAINER, tail_lines=count)
        return str(log).splitlines()

    def _describe(self, pod: Any) -> StepPod:
        name = pod.metadata.name
        summary = pod_summaries([pod])[name]
        waits = pod.status.phase == "Pending" or ": " in summary
        if summary == "Pending":  # its status does not state why; a volume or a secret may be missing
            summary = "; ".join([summary, *self._warnings(pod)[-1:]])
        failures = list(terminations(pod, CONTAINER))
        step, is_driver = _step_of(pod)
        return StepPod(
            name=name,
            step=step,
            is_driver=is_driver,
            created_at=pod.metadata.creation_timestamp,
            waiting=summary if waits and pod.status.phase in ("Pending", "Running") else "",
            failure=str(failures[-1]) if failures else "",
            cause=failures[-1].cause if failures else "",
        )

    def _warnings(self, pod: Any) -> list[str]:
        selector = f"involvedObject.uid={pod.metadata.uid},type=Warning"
        events = self._call("list events", self._core.list_namespaced_event, field_selector=selector)
        return [event_summary(event) for event in events.items]

    def _call(self, action: str, call: Any, **options: Any) -> Any:
        try:
            return call(namespace=self.namespace, _request_timeout=_TIMEOUT_S, **options)
        except client.ApiException as error:
            raise InputError(f"{action} in namespace {self.namespace}: {error.status} {api_message(error)}") from error
        except (HTTPError, OSError, ConfigException) as error:
            raise InputError(f"{action}: cannot reach the cluster ({error}); check the network") from error
