"""The launcher against the fake API server, in short intervals."""

import threading
import time

import pytest

from rarft.cluster import client as cluster_api
from rarft.cluster import job_monitor, launcher
from rarft.cluster.job_config import Job
from rarft.cluster.kinds import JOB_KINDS
from rarft.cluster.launcher import Launcher

JOB = Job(name="first", image="i", arguments=["--preset=tiny"], nodes=2, gpus=1)
QUEUED = Job(name="first", image="i", arguments=[], queue="gpus")

# For tests whose result depends on the kind of job; the others use one kind.
EACH_KIND = pytest.mark.parametrize("cluster", list(JOB_KINDS), indirect=True)


def set_intervals(monkeypatch):
    monkeypatch.setattr(job_monitor, "_POLL_INTERVAL_S", 0.12)
    monkeypatch.setattr(job_monitor, "_MIN_POLL_INTERVAL_S", 0.06)
    monkeypatch.setattr(cluster_api, "_INITIAL_DELAY_S", 0.05)
    monkeypatch.setattr(cluster_api, "_MAX_DELAY_S", 0.25)
    monkeypatch.setattr(launcher, "_STARTUP_DENIAL_TIMEOUT_S", 0.3)


def run_scenario(cluster, *events, job=JOB, pause=0.25):
    """Run the launcher; once the job exists, trigger the events, with a pause after each."""

    def operator():
        while JOB.name not in cluster.jobs:
            time.sleep(0.02)
        for event in events:
            event()
            time.sleep(pause)

    threading.Thread(target=operator, daemon=True).start()
    Launcher(cluster.api(), "lab", cluster.kind, job).run()


def succeeds(cluster):
    return lambda: cluster.set(JOB.name, "Succeeded")


def runs(cluster):
    """Let the operator start the job."""

    def start():
        cluster.set("first", "Running")
        cluster.pod("first-worker-0")

    return start


def add_job(cluster, job=JOB):
    """Add a job that a launcher created earlier, and that runs."""
    cluster.add_job(Launcher(cluster.api(), "lab", cluster.kind, job)._manifest)
    cluster.jobs[job.name] |= {"status": {}}
    cluster.jobs[job.name]["spec"] |= {**cluster.kind.suspend(False)["spec"]}
    cluster.pod("first-worker-0")
