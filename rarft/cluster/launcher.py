"""Start a PyTorchJob, tell what happens to it, and end with it: well, or with the one line that says why not.

Started again, it adopts the job that it finds, or replaces one that failed, which then goes on from its newest
complete checkpoint. Told to stop, it deletes the job before anything else: whoever ends a step must not leave
a job behind that holds sixteen GPUs.
"""

import hashlib
import json
import os
import signal
import time
from typing import Any

from kubernetes import client, watch
from urllib3.exceptions import HTTPError

from rarft.cluster import sightings
from rarft.cluster.api import message_of, patiently
from rarft.cluster.pods import JOB_LABEL
from rarft.cluster.pytorchjob import GROUP, PLURAL, VERSION
from rarft.errors import ElsewhereError, InputError

HASH = "rarft.io/settings"  # annotation: what the job was rendered from
_TERMINATED = 128 + signal.SIGTERM
_LOOK_EVERY = 15  # seconds; a change of the job is seen sooner
_LOOK_AT_MOST_EVERY = 2.0  # seconds
_PARTS = ("spec", "status")  # of a job
_REMIND_EVERY = 600.0  # seconds between two lines on what a job still waits for
_LOG_LINES = 30  # of the container that failed
_STOP_TRIES = 5  # of deleting the job when told to stop
_GONE_WITHIN = 1800.0  # seconds that pods of a deleted job may take to end


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
        self._where = {"group": GROUP, "version": VERSION, "namespace": namespace, "plural": PLURAL}
        self._name, self._namespace = str(manifest["metadata"]["name"]), namespace
        digest = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
        metadata = {**manifest["metadata"], "annotations": {HASH: digest}}
        self._manifest, self._hash = {**manifest, "metadata": metadata}, digest
        self._told: dict[str, str] = {}  # what was said last of each pod and of the job
        self._told_at = time.monotonic()
        self._events: set[str] = set()
        self._creating = self._stopped = False

    def run(self) -> None:
        """Run the job to its end.

        Raises:
            InputError: it ended for what the user can mend, or this account may not run it.
            ElsewhereError: it failed, or was deleted; the line says which container, and what it said last.
            SystemExit: with code 143, after SIGTERM; the job is deleted.
        """
        before = signal.signal(signal.SIGTERM, self._stop)
        try:
            self._start()
            while True:
                job = self._get()
                if job is None:
                    raise ElsewhereError(
                        f"job {self._name} was deleted while it ran; start again to go on from its last checkpoint"
                    )
                pods = self._pods()
                self._tell(job, pods)
                if (state := sightings.state_of(job)) == "Succeeded":
                    return
                endings = sightings.endings(pods)
                if state == "Failed":
                    raise self._failure(job, endings)
                if endings and endings[-1].is_bad_input:
                    self._delete()  # every further start would end in the same way
                    raise InputError(f"job {self._name}: {endings[-1].cause}")
                self._wait_for_a_change(job)
        finally:
            signal.signal(signal.SIGTERM, before)

    def _stop(self, _signal: int, _frame: Any) -> None:
        """Delete the job, and say nothing: there is under a second."""
        self._stopped = True
        for _ in range(_STOP_TRIES):
            try:
                self._jobs_when_told_to_stop.delete_namespaced_custom_object(
                    **self._where, name=self._name, propagation_policy="Background", _request_timeout=5
                )
                break
            except client.ApiException as error:
                if error.status == 404:
                    break
            except (HTTPError, OSError):
                continue
        if not self._creating:  # else the call goes on, and its job is deleted once it is there
            os._exit(_TERMINATED)

    def _start(self) -> None:
        """Create the job, or adopt the one that is there.

        Raises:
            InputError: another one is there under its name, or the cluster refuses the manifest.
        """
        while not self._create():
            there = self._get()
            if there is None:
                continue  # it has gone since
            state = sightings.state_of(there)
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
            return

    def _create(self) -> bool:
        """Create the job; returns whether there was none of its name."""
        self._creating = True
        try:
            patiently(
                f"creating job {self._name}",
                self._jobs.create_namespaced_custom_object,
                **self._where,
                body=self._manifest,
                field_validation="Strict",
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
                self._stop(signal.SIGTERM, None)
        print(f"job {self._name}: created in namespace {self._namespace}", flush=True)
        return True

    def _get(self) -> dict[str, Any] | None:
        try:
            job: dict[str, Any] = patiently(
                f"looking at job {self._name}",
                self._jobs.get_namespaced_custom_object,
                **self._where,
                name=self._name,
            )
        except client.ApiException as error:
            if error.status == 404:
                return None
            raise
        return job

    def _delete(self) -> None:
        """Delete the job and wait until it is gone.

        Raises:
            ElsewhereError: it does not go.
        """
        try:
            patiently(
                f"deleting job {self._name}",
                self._jobs.delete_namespaced_custom_object,
                **self._where,
                name=self._name,
                propagation_policy="Foreground",
            )
        except client.ApiException as error:
            if error.status != 404:
                raise
        ends = time.monotonic() + _GONE_WITHIN
        while self._get() is not None:
            if time.monotonic() > ends:
                raise ElsewhereError(f"job {self._name} is deleted and does not go; its pods' nodes may be lost")
            time.sleep(1)

    def _pods(self) -> list[Any]:
        pods = patiently(
            f"looking at the pods of job {self._name}",
            self._core.list_namespaced_pod,
            self._namespace,
            label_selector=f"{JOB_LABEL}={self._name}",
        )
        return list(pods.items)

    def _tell(self, job: dict[str, Any], pods: list[Any]) -> None:
        """Say what has changed, and from time to time what has not."""
        state = sightings.state_of(job)
        detail = "waits for room in its queue" if state == "Queued" else sightings.message_of_state(job)
        lines = {f"job {self._name}": f"{state}{f': {detail}' if detail else ''}"}
        lines |= {f"pod {name}": line for name, line in sightings.pod_lines(pods).items()}
        remind = state not in ("Running", "Succeeded") and time.monotonic() - self._told_at > _REMIND_EVERY
        for subject, line in lines.items():
            if remind or self._told.get(subject) != line:
                print(f"{subject}: {'still ' if self._told.get(subject) == line else ''}{line}", flush=True)
                self._told_at = time.monotonic()
        self._told = lines
        names = [self._name, *(pod.metadata.name for pod in pods)]
        events = patiently(
            f"looking at the events of job {self._name}", self._core.list_namespaced_event, self._namespace
        )
        for key, line in sightings.event_lines(events.items, names).items():
            if key not in self._events:
                self._events.add(key)
                print(f"event: {line}", flush=True)

    def _wait_for_a_change(self, seen: dict[str, Any]) -> None:
        """Return when the job is not as it was seen, or after some seconds: pods and events change by themselves."""
        began = time.monotonic()
        try:
            for event in watch.Watch().stream(
                self._jobs.list_namespaced_custom_object,
                **self._where,
                field_selector=f"metadata.name={self._name}",
                timeout_seconds=_LOOK_EVERY,
                _request_timeout=(10, _LOOK_EVERY + 10),
            ):
                now = event["object"]
                if event["type"] == "DELETED" or [now.get(part) for part in _PARTS] != [
                    seen.get(part) for part in _PARTS
                ]:
                    break
        except (client.ApiException, HTTPError, OSError) as error:
            print(f"watching job {self._name} was cut off ({type(error).__name__}); looking again", flush=True)
        time.sleep(max(0.0, _LOOK_AT_MOST_EVERY - (time.monotonic() - began)))

    def _failure(self, job: dict[str, Any], endings: list[sightings.Ending]) -> Exception:
        """The error that a failed job is, after the log's last lines of the container that failed first."""
        if not endings:
            return ElsewhereError(f"job {self._name} failed: {sightings.message_of_state(job) or 'no pod says why'}")
        # Of the last start of all: the first to fail; the others died of its death.
        last = [ending for ending in endings if not ending.before] or endings
        first = last[0]
        for line in self._log(first):
            print(f"    {first.pod} | {line}", flush=True)
        text = f"job {self._name} failed: {first}"
        return InputError(text) if first.is_bad_input else ElsewhereError(text)

    def _log(self, ending: sightings.Ending) -> list[str]:
        try:
            log = patiently(
                f"reading the log of {ending.pod}",
                self._core.read_namespaced_pod_log,
                ending.pod,
                self._namespace,
                tail_lines=_LOG_LINES,
                previous=ending.before,
            )
        except client.ApiException as error:
            return [f"(its log cannot be read: {message_of(error)})"]
        return str(log).splitlines()
