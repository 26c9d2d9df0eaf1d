"""Run a job from its creation to its end.

A job of the same name is adopted if it runs with the same settings, and replaced if it failed; training then resumes
from the newest complete checkpoint. On SIGTERM the job is deleted first, so that no orphaned job occupies GPUs. A job
is created suspended and resumed afterwards: if the launcher dies in between, the job occupies nothing.

A running job is deleted on SIGTERM and on bad input only. It continues if the API server is away or denies a read.
"""

import json
import logging
import os
import signal
import time
from collections.abc import Sequence
from typing import Any

from kubernetes import client
from urllib3.exceptions import HTTPError

from rarft.cluster import permissions
from rarft.cluster.api_errors import PermissionDeniedError
from rarft.cluster.job_client import JobClient
from rarft.cluster.job_config import Job
from rarft.cluster.job_kind import JobKind
from rarft.cluster.job_monitor import JobMonitor
from rarft.cluster.job_status import job_state
from rarft.errors import ChildFailedError, InputError
from rarft.storage.hashing import hash_text

logger = logging.getLogger(__name__)

MANIFEST_HASH = "rarft.io/manifest-hash"  # annotation
_EXIT_SIGTERM = 128 + signal.SIGTERM
# An API server denies calls for up to a second after it starts; accounts and roles may be restored within minutes.
_STARTUP_DENIAL_TIMEOUT_S, _DENIAL_TIMEOUT_S = 5.0, 600.0
# On SIGTERM, the deletion is retried until the kubelet kills this process, or for this time.
_SIGTERM_TIMEOUT_S, _SIGTERM_INTERVAL_S = 600.0, 0.5
_DELETE_TIMEOUT_S = 1800.0  # for the pods of a deleted job to end


class Launcher:
    """Runs a job of a kind."""

    def __init__(self, api: client.ApiClient, namespace: str, kind: JobKind, job: Job) -> None:
        manifest = kind.manifest(job)
        self._api, self._name, self._job = api, job.name, job
        self._hash = hash_text(json.dumps(manifest, sort_keys=True))
        self._manifest = _merge(
            manifest, {"metadata": {"annotations": {MANIFEST_HASH: self._hash}}, **kind.suspend(True)}
        )
        self._jobs = JobClient(api, namespace, kind, self._name)
        self._jobs.denial_timeout_s = _STARTUP_DENIAL_TIMEOUT_S
        # A separate connection, because the signal may interrupt a call on the other one.
        self._jobs_on_sigterm = JobClient(client.ApiClient(api.configuration), namespace, kind, self._name)
        self._creating = self._stop_requested = False

    def run(self) -> None:
        """Run the job to its end.

        Raises:
            InputError: The user has to fix something, or this account may not run the job.
            ChildFailedError: The job failed or was deleted; the message names the container and the cause.
            SystemExit: Code 143 after SIGTERM; the job is deleted.
        """
        previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            self._check_permissions()  # before there is a job that could be orphaned
            monitor = self._start()
            try:
                self._wait(monitor)
            except PermissionDeniedError:
                logger.warning("job %s: keeps running; rerun to attach, or use `rarft cancel %s`", *2 * [self._name])
                raise
        finally:
            signal.signal(signal.SIGTERM, previous)

    def exists(self) -> bool:
        """Check whether the job was started before and has not failed."""
        job = self._jobs.get()
        return job is not None and self._state(job) != "Failed"

    def _has_same_settings(self, job: dict[str, Any]) -> bool:
        return bool(job["metadata"].get("annotations", {}).get(MANIFEST_HASH) == self._hash)

    def _state(self, job: dict[str, Any], pods: Sequence[Any] = ()) -> str:
        return job_state(self._jobs.kind, job, pods, self._job.nodes, bool(self._job.queue)).name

    def _check_permissions(self) -> None:
        needed = permissions.rules(self._jobs.kind, queued=bool(self._job.queue))
        options = {"denial_timeout_s": _STARTUP_DENIAL_TIMEOUT_S}
        deadline = time.monotonic() + _STARTUP_DENIAL_TIMEOUT_S
        while missing := permissions.missing_permissions(self._api, self._jobs.namespace, needed, **options):
            if time.monotonic() > deadline:
                raise PermissionDeniedError(
                    f"namespace {self._jobs.namespace}: this account may not {', '.join(missing)}; grant it with "
                    "`kubectl apply -k k8s/base`, or use another account"
                )
            time.sleep(0.5)

    def _start(self) -> JobMonitor:
        """Create the job, or adopt the one that exists; return its monitor."""
        while (job := self._create()) is None:
            job = self._jobs.get()
            if job is None:
                continue  # deleted since
            state = self._state(job, self._jobs.pods()[0])
            if "deletionTimestamp" in job["metadata"] or state == "Failed":
                reason = "failed" if state == "Failed" else "is being deleted"
                logger.info("job %s: previous job %s; recreating it", self._name, reason)
                self._replace()
                continue
            if not self._has_same_settings(job):
                raise InputError(
                    f"job {self._name}: already {state} with other settings; delete it with "
                    f"`rarft cancel {self._name}`, or use another name"
                )
            logger.info("job %s: already %s; attaching", self._name, state)
            break
        self._jobs.denial_timeout_s = _DENIAL_TIMEOUT_S
        if not self._job.queue:
            self._jobs.resume()
        return JobMonitor(self._jobs, job, self._job.nodes, is_queued=bool(self._job.queue))

    def _create(self) -> dict[str, Any] | None:
        """Create the job and return it; None if one of its name exists."""
        self._creating = True
        try:
            job = self._jobs.create(self._manifest, should_retry=lambda: not self._stop_requested)
        finally:  # the job may have been created although the call failed
            self._creating = False
            if self._stop_requested:
                self._on_sigterm(signal.SIGTERM, None)
        if job is not None:
            logger.info("job %s: created in namespace %s", self._name, self._jobs.namespace)
        return job

    def _replace(self) -> None:
        """Delete the previous job and wait until it and its pods are gone."""
        self._jobs.delete("Foreground")
        deadline = time.monotonic() + _DELETE_TIMEOUT_S
        while self._jobs.get() is not None or self._jobs.pods()[0]:
            if time.monotonic() > deadline:
                raise ChildFailedError(
                    f"job {self._name}: still exists {_DELETE_TIMEOUT_S:.0f} s after deletion; check its pods' nodes"
                )
            time.sleep(1)

    def _wait(self, monitor: JobMonitor) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                raise ChildFailedError(f"job {self._name}: deleted while running; rerun to resume")
            state = monitor.observe(job)
            if state.name == "Succeeded":
                return
            if state.name == "Failed":
                raise monitor.failure(state)
            if invalid := [failure for failure in monitor.failures if failure.is_bad_input]:
                self._jobs.delete()
                raise InputError(f"job {self._name}: {invalid[0].cause}")  # a restart would fail in the same way
            monitor.wait_for_change()

    def _on_sigterm(self, _signal: int, _frame: Any) -> None:
        """Delete the job without logging: there may be less than a second."""
        self._stop_requested = True
        if self._creating:
            return  # the call ends first, and its job is deleted afterwards
        deadline = time.monotonic() + _SIGTERM_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                job = self._jobs_on_sigterm.try_get()
                if job is not None and self._has_same_settings(job):
                    self._jobs_on_sigterm.try_delete()
                break
            except (client.ApiException, HTTPError, OSError):
                time.sleep(_SIGTERM_INTERVAL_S)
        os._exit(_EXIT_SIGTERM)


def _merge(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return two manifests as one, field by field."""
    both = one.keys() & other.keys()
    return {**one, **other, **{key: _merge(one[key], other[key]) for key in both if isinstance(one[key], dict)}}
