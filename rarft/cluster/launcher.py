"""Run a PyTorchJob from its creation to its end.

A job of the same name is adopted if it runs with the same settings, and replaced if it failed; training then resumes
from the newest complete checkpoint. On SIGTERM the job is deleted first, so that no orphaned job occupies GPUs. A job
is created suspended and resumed afterwards: if the launcher dies in between, the job occupies nothing.
"""

import json
import logging
import os
import signal
import time
from typing import Any

from kubernetes import client
from urllib3.exceptions import HTTPError

from rarft.cluster import job_status
from rarft.cluster.job_client import JobClient
from rarft.cluster.job_monitor import JobMonitor
from rarft.errors import ChildFailedError, InputError
from rarft.storage.hashing import hash_text

logger = logging.getLogger(__name__)

MANIFEST_HASH = "rarft.io/manifest-hash"  # annotation
_EXIT_SIGTERM = 128 + signal.SIGTERM
_DELETE_ATTEMPTS = 5  # on SIGTERM
_DELETE_TIMEOUT_S = 1800.0  # for the pods of a deleted job to end


class Launcher:
    """Runs the job of a PyTorchJob manifest."""

    def __init__(self, api: client.ApiClient, namespace: str, manifest: dict[str, Any]) -> None:
        policy = manifest["spec"]["runPolicy"]
        self._name = str(manifest["metadata"]["name"])
        self._queued: bool = policy.get("suspend", False)  # Kueue resumes the job
        self._hash = hash_text(json.dumps(manifest, sort_keys=True))
        self._manifest = {
            **manifest,
            "metadata": {**manifest["metadata"], "annotations": {MANIFEST_HASH: self._hash}},
            "spec": {**manifest["spec"], "runPolicy": {**policy, "suspend": True}},
        }
        self._jobs = JobClient(api, namespace, self._name)
        # A separate connection, because the signal may interrupt a call on the other one.
        self._jobs_on_sigterm = JobClient(client.ApiClient(api.configuration), namespace, self._name)
        self._monitor = JobMonitor(self._jobs, suspended_by_queue=self._queued)
        self._creating = self._stop_requested = self._owns_job = False

    def run(self) -> None:
        """Run the job to its end.

        Raises:
            InputError: The user has to fix something, or this account may not run the job.
            ChildFailedError: The job failed or was deleted; the message names the container and the cause.
            SystemExit: Code 143 after SIGTERM; the job is deleted.
        """
        previous = signal.signal(signal.SIGTERM, self._on_sigterm)
        try:
            self._monitor.check_permissions()  # before there is a job that could be orphaned
            self._start()
            self._wait()
        except Exception:
            if self._owns_job:
                self._delete_on_exit()
            raise
        finally:
            signal.signal(signal.SIGTERM, previous)

    def exists(self) -> bool:
        """Check whether the job was started before and has not failed."""
        job = self._jobs.get()
        return job is not None and job_status.job_state(job) != "Failed"

    def _start(self) -> None:
        """Create the job, or adopt the one that exists."""
        while not self._create():
            existing = self._jobs.get()
            if existing is None:
                continue  # deleted since
            state = job_status.job_state(existing)
            if "deletionTimestamp" in existing["metadata"] or state == "Failed":
                reason = "failed" if state == "Failed" else "is being deleted"
                logger.info("job %s: previous job %s; recreating it", self._name, reason)
                self._replace()
                continue
            if existing["metadata"].get("annotations", {}).get(MANIFEST_HASH) != self._hash:
                raise InputError(
                    f"job {self._name}: already {state} with other settings; delete it with "
                    f"`rarft cancel {self._name}`, or use another name"
                )
            logger.info("job %s: already %s; attaching", self._name, state)
            break
        self._owns_job = True
        self._monitor.start()
        if not self._queued:
            self._jobs.resume()

    def _create(self) -> bool:
        """Create the job; returns False if one of its name exists."""
        self._creating = True
        try:
            created = self._jobs.create(self._manifest, should_retry=lambda: not self._stop_requested)
        finally:
            self._creating = False
            if self._stop_requested:
                self._on_sigterm(signal.SIGTERM, None)
        if created:
            logger.info("job %s: created in namespace %s", self._name, self._jobs.namespace)
        return created

    def _replace(self) -> None:
        """Delete the previous job and wait until it and its pods are gone."""
        self._jobs.delete("Foreground")
        deadline = time.monotonic() + _DELETE_TIMEOUT_S
        while self._jobs.get() is not None or self._monitor.pods():
            if time.monotonic() > deadline:
                raise ChildFailedError(
                    f"job {self._name}: still exists {_DELETE_TIMEOUT_S:.0f} s after deletion; check its pods' nodes"
                )
            time.sleep(1)

    def _wait(self) -> None:
        while True:
            job = self._jobs.get()
            if job is None:
                self._owns_job = False
                raise ChildFailedError(f"job {self._name}: deleted while running; rerun to resume")
            self._monitor.observe(job)
            state = job_status.job_state(job)
            if state == "Succeeded":
                return
            if state == "Failed":
                self._owns_job = False  # keep it for inspection
                raise self._monitor.failure(job)
            if invalid := [failure for failure in self._monitor.failures if failure.is_bad_input]:
                raise InputError(f"job {self._name}: {invalid[0].cause}")  # a restart would fail in the same way
            self._monitor.wait_for_change()

    def _on_sigterm(self, _signal: int, _frame: Any) -> None:
        """Delete the job without logging: there may be less than a second."""
        self._stop_requested = True
        self._delete_on_exit()
        if not self._creating:  # otherwise the create call continues, and its job is deleted afterwards
            os._exit(_EXIT_SIGTERM)

    def _delete_on_exit(self) -> None:
        for _ in range(_DELETE_ATTEMPTS):
            try:
                self._jobs_on_sigterm.try_delete()
                return
            except client.ApiException as error:
                if error.status == 404:
                    return
            except (HTTPError, OSError):
                continue
