"""Start a PyTorchJob, tell what happens to it, and end with it: well, or with the one line that says why not.

Started again, it adopts the job that it finds, or replaces one that failed, which then goes on from its newest
complete checkpoint. Told to stop, it deletes the job before anything else: whoever ends a step must not leave
a job behind that holds sixteen GPUs. A job is made suspended and released once it is known to be there, so that
one whose launcher died in between holds nothing.
"""

import hashlib
import json
import os
import signal
import time
from typing import Any

from kubernetes import client, watch
from urllib3.exceptions import HTTPError

from rarft.cluster import status
from rarft.cluster.client import call_with_retry, denied, message_of
from rarft.cluster.pod_spec import CONTAINER, JOB_LABEL
from rarft.cluster.pytorchjob import GROUP, PLURAL, VERSION
from rarft.errors import ChildFailedError, InputError

HASH = "rarft.io/settings"  # annotation: what the job was rendered from
_TERMINATED = 128 + signal.SIGTERM
_POLL_INTERVAL_S = 15  # seconds; a change of a pod is seen at once
_LOOK_AT_MOST_EVERY = 2.0  # seconds
_REMIND_EVERY = 600.0  # seconds between two lines on what a job still waits for
_LOG_LINES = 30  # of the container that ended, without torchrun's own account, which may be long
_LOG_LINES_READ = 400
_LOG_PATIENCE = 10.0  # seconds: a lost node's log must not keep the cause waiting
_API_OUTAGE_TIMEOUT_S = (
    24 * 3600.0
)  # seconds that the API may be away while a job runs: the step has a time limit of its own
_EVENTS = 500  # that are looked at
_STOP_TRIES = 5  # of deleting the job when told to stop
_DELETE_TIMEOUT_S = 1800.0  # seconds that pods of a deleted job may take to end


class Launcher:
    """One job, from its start to its end."""

    def __init__(self, api: client.ApiClient, namespace: str, manifest: dict[str, Any]) -> None:
        """
        Args:
            api: client of the cluster.
            namespace: where the job runs.
            manifest: the PyTorchJob.
        """
        self._jobs, self._core = client.CustomObjectsApi(api), client.CoreV1Api(api)
        # Of its own: the signal may come while the other one is in the middle of a call.
        self._jobs_when_told_to_stop = client.CustomObjectsApi(client.ApiClient(api.configuration))
        self._where: dict[str, Any] = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
        self._name, self._namespace = str(manifest["metadata"]["name"]), namespace
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        # Where Kueue has the say, it releases the job.
        self._releases = not manifest["spec"]["runPolicy"].get("suspend", False)
        policy = {**manifest["spec"]["runPolicy"], "suspend": True}
        self._manifest = {
            **manifest,
            "metadata": {**manifest["metadata"], "annotations": {HASH: digest}},
            "spec": {**manifest["spec"], "runPolicy": policy},
        }
        self._hash = digest
        self._wrap_s3_errors: dict[str, str] = {}  # what was said last of each pod and of the job
        self._told_at = time.monotonic()
        self._events: set[str] = set()
        self._endings: list[status.ContainerTermination] = []  # of the job's pods, also of those that have gone
        self._seen: set[tuple[str, Any]] = set()
        self._version: str | None = None  # of the pods, from which they are watched
        self._creating = self._stopped = self._ours = False

    def run(self) -> None:
        """Run the job to its end.

        Raises:
            InputError: it ended for what the user can mend, or this account may not run it.
            ChildFailedError: it failed, or was deleted; the line says which container, and what it said.
            SystemExit: with code 143, after SIGTERM; the job is deleted.
        """
        before = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            # What will be asked later is asked before there is a job that would be left alone.
            self._look_at_events(self._look_at_pods())
            self._start()
            self._watch_to_the_end()
        except Exception:
            if self._ours:
                self._delete_quietly()
            raise
        finally:
            signal.signal(signal.SIGTERM, before)

    def is_there(self) -> bool:
        """Whether the job has been started before and has not failed."""
        job = self._get()
        return job is not None and status.state_of(job) != "Failed"

    def _watch_to_the_end(self) -> None:
        while True:
            job = self._get()
            if job is None:
                self._ours = False
                raise ChildFailedError(
                    f"job {self._name} was deleted while it ran; start again to go on from its last checkpoint"
                )
            pods = self._look_at_pods()
            self._tell(job, pods)
            self._look_at_events(pods)
            state = status.state_of(job)
            if state == "Succeeded":
                return
            if state == "Failed":
                self._ours = False  # it stays, to be looked at
                raise self._failure(job)
            if bad := [ending for ending in self._endings if ending.is_bad_input]:
                raise InputError(f"job {self._name}: {bad[0].cause}")  # every further start would end in the same way
            self._wait_for_a_change()

    def _on_sigterm(self, _signal: int, _frame: Any) -> None:
        """Delete the job, and say nothing: there is under a second."""
        self._stopped = True
        self._delete_quietly()
        if not self._creating:  # else the call goes on, and its job is deleted once it is there
            os._exit(_TERMINATED)

    def _delete_quietly(self) -> None:
        for _ in range(_STOP_TRIES):
            try:
                self._jobs_when_told_to_stop.delete_namespaced_custom_object(
                    **self._where, name=self._name, propagation_policy="Background", _request_timeout=5
                )
                return
            except client.ApiException as error:
                if error.status == 404:
                    return
            except (HTTPError, OSError):
                continue

    def _start(self) -> None:
        """Create the job, or adopt the one that is there.

        Raises:
            InputError: another one is there under its name, or the cluster refuses the manifest.
        """
        while not self._create():
            there = self._get()
            if there is None:
                continue  # it has gone since
            state = status.state_of(there)
            deleted = "deletionTimestamp" in there["metadata"]
            if deleted or state == "Failed":
                print(f"job {self._name}: the one before {'is being deleted' if deleted else 'failed'}; starting anew")
                self._delete()
                continue
            if there["metadata"].get("annotations", {}).get(HASH) != self._hash:
                raise InputError(
                    f"job {self._name}: one with other settings is there and {state}; "
                    f"end it by `rarft cancel {self._name}`, or give this one another name"
                )
            print(f"job {self._name}: is there and {state}; watching it", flush=True)
            break
        self._ours = True
        if self._releases:
            self._release()

    def _create(self) -> bool:
        """Create the job; returns whether there was none of its name."""
        self._creating = True
        try:
            call_with_retry(
                f"creating job {self._name}",
                self._jobs.create_namespaced_custom_object,
                **self._where,
                body=self._manifest,
                field_validation="Strict",
                keep_on=lambda: not self._stopped,
            )
        except client.ApiException as error:
            if error.status == 409:
                return False
            if error.status in (400, 404, 422):
                hint = "is the training operator installed?" if error.status == 404 else "the manifest does not fit it"
                raise InputError(f"creating job {self._name}: {message_of(error)}; {hint}") from error
            raise
        finally:
            self._creating = False
            if self._stopped:
                self._on_sigterm(signal.SIGTERM, None)
        print(f"job {self._name}: created in namespace {self._namespace}", flush=True)
        return True

    def _release(self) -> None:
        try:
            call_with_retry(
                f"releasing job {self._name}",
                self._jobs.patch_namespaced_custom_object,
                **self._where,
                name=self._name,
                body={"spec": {"runPolicy": {"suspend": False}}},
            )
        except client.ApiException as error:
            if error.status != 404:  # it has gone since, which the next look tells
                raise

    def _get(self) -> dict[str, Any] | None:
        try:
            job: dict[str, Any] = call_with_retry(
                f"looking at job {self._name}",
                self._jobs.get_namespaced_custom_object,
                **self._where,
                name=self._name,
                patience=_API_OUTAGE_TIMEOUT_S,
            )
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise
        return job

    def _delete(self) -> None:
        """Delete the job and wait until it and its pods are gone.

        Raises:
            ChildFailedError: it does not go.
        """
        try:
            call_with_retry(
                f"deleting job {self._name}",
                self._jobs.delete_namespaced_custom_object,
                **self._where,
                name=self._name,
                propagation_policy="Foreground",
            )
        except client.ApiException as error:
            if error.status != 404:
                raise
        ends = time.monotonic() + _DELETE_TIMEOUT_S
        while self._get() is not None or self._look_at_pods():
            if time.monotonic() > ends:
                raise ChildFailedError(f"job {self._name} is deleted and does not go; its pods' nodes may be lost")
            time.sleep(1)

    def _look_at_pods(self) -> list[Any]:
        listed = call_with_retry(
            f"looking at the pods of job {self._name}",
            self._core.list_namespaced_pod,
            self._namespace,
            label_selector=f"{JOB_LABEL}={self._name}",
            patience=_API_OUTAGE_TIMEOUT_S,
        )
        if self._version is None:
            self._version = listed.metadata.resource_version
        for pod in listed.items:
            self._note_endings(pod)
        return list(listed.items)

    def _note_endings(self, pod: Any) -> None:
        """Keep how the pod's container ended, and show it at once: the operator removes pods that failed."""
        for ending in status.endings(pod, CONTAINER):
            key = (pod.metadata.uid, ending.at)
            if key in self._seen:
                continue
            self._seen.add(key)
            if not self._ours:
                continue  # of a job before
            self._endings.append(ending)
            for line in self._log(ending):
                print(f"    {ending.pod} | {line}", flush=True)
            print(f"pod {ending}", flush=True)

    def _tell(self, job: dict[str, Any], pods: list[Any]) -> None:
        """Say what has changed, and from time to time what has not."""
        state = status.state_of(job)
        if state == "Queued" and self._releases:
            state = "Released"  # and the operator has not taken note yet
        detail = "waits for room in its queue" if state == "Queued" else status.message_of_state(job)
        lines = {f"job {self._name}": f"{state}{f': {detail}' if detail else ''}"}
        lines |= {f"pod {name}": line for name, line in status.pod_lines(pods).items()}
        remind = state not in ("Running", "Succeeded") and time.monotonic() - self._told_at > _REMIND_EVERY
        for subject, line in lines.items():
            if remind or self._wrap_s3_errors.get(subject) != line:
                print(f"{subject}: {'still ' if self._wrap_s3_errors.get(subject) == line else ''}{line}", flush=True)
                self._told_at = time.monotonic()
        self._wrap_s3_errors = lines

    def _look_at_events(self, pods: list[Any]) -> None:
        listed = call_with_retry(
            f"looking at the events of job {self._name}",
            self._core.list_namespaced_event,
            self._namespace,
            field_selector="type=Warning",
            limit=_EVENTS,
            patience=_API_OUTAGE_TIMEOUT_S,
        )
        for line in status.event_lines(listed.items, [self._name, *(pod.metadata.name for pod in pods)]):
            if line not in self._events:
                self._events.add(line)
                print(f"event: {line}", flush=True)

    def _wait_for_a_change(self) -> None:
        """Return when a pod changes, or after some seconds: events and queues change by themselves.

        Raises:
            DeniedError: this account may not watch pods.
        """
        began = time.monotonic()
        try:
            for event in watch.Watch().stream(
                self._core.list_namespaced_pod,
                self._namespace,
                label_selector=f"{JOB_LABEL}={self._name}",
                resource_version=self._version,
                timeout_seconds=_POLL_INTERVAL_S,
                _request_timeout=(10, _POLL_INTERVAL_S + 10),
            ):
                # The next watch goes on from here: a pod that fails and is removed in between is not missed.
                self._version = event["object"].metadata.resource_version
                self._note_endings(event["object"])
                break
        except client.ApiException as error:
            if error.status in (401, 403):
                raise denied(f"watching the pods of job {self._name}", error) from error
            self._version = None  # too old, for instance: the pods are listed anew
        except (HTTPError, OSError) as error:
            print(f"watching job {self._name} was cut off ({type(error).__name__}); looking again", flush=True)
        time.sleep(max(0.0, _LOOK_AT_MOST_EVERY - (time.monotonic() - began)))

    def _failure(self, job: dict[str, Any]) -> Exception:
        """The error that a failed job is: the container that failed first of those that failed last."""
        first = status.root_cause(self._endings)
        if first is None:
            return ChildFailedError(f"job {self._name} failed: {status.message_of_state(job) or 'no pod says why'}")
        text = f"job {self._name} failed: {first}"
        return InputError(text) if first.is_bad_input else ChildFailedError(text)

    def _log(self, ending: status.ContainerTermination) -> list[str]:
        """The last lines of a container's log, up to where torchrun gives its account of it."""
        try:
            log = call_with_retry(
                f"reading the log of {ending.pod}",
                self._core.read_namespaced_pod_log,
                ending.pod,
                self._namespace,
                container=CONTAINER,
                tail_lines=_LOG_LINES_READ,
                previous=ending.before,
                patience=_LOG_PATIENCE,
            )
        except (client.ApiException, InputError) as error:
            reason = message_of(error) if isinstance(error, client.ApiException) else str(error)
            return [f"(its log cannot be read: {reason})"]
        lines = str(log).splitlines()
        accounts = [index for index, line in enumerate(lines) if "torch.distributed.elastic" in line]
        return (lines[: accounts[0]] if accounts and accounts[0] else lines)[-_LOG_LINES:]
