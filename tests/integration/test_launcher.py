"""The launcher against a fake Kubernetes API server: log lines, errors, and no orphaned job."""

import random
import signal
import subprocess
import sys
import threading
import time

import pytest
import yaml

from helpers.cluster_server import Cluster, terminated, waiting
from helpers.paths import ROOT
from rarft.cluster import client as cluster_api
from rarft.cluster import job_monitor
from rarft.cluster.job_config import Job
from rarft.cluster.launcher import Launcher
from rarft.cluster.pytorchjob import pytorchjob
from rarft.errors import ChildFailedError, InputError

TORCHRUN_REPORT = """
Root Cause (first observed failure):
[0]:
  time      : 2026-01-01_00:00:00
  rank      : 3 (local_rank: 1)
  exitcode  : -9 (pid: 77)
  traceback : Signal 9 (SIGKILL) received by PID 77
============================================================
"""
JOB = Job(name="first", image="i", arguments=["--preset=tiny"], nodes=2, gpus=1)


@pytest.fixture
def cluster(monkeypatch):
    monkeypatch.setattr(job_monitor, "_POLL_INTERVAL_S", 0.2)
    monkeypatch.setattr(job_monitor, "_MIN_POLL_INTERVAL_S", 0.1)
    monkeypatch.setattr(cluster_api, "_INITIAL_DELAY_S", 0.05)
    served = Cluster()
    yield served
    served.close()


def run_scenario(cluster, *events, job=JOB):
    """Run the launcher; once the job exists, trigger the events, with a pause after each."""

    def operator():
        while JOB.name not in cluster.jobs:
            time.sleep(0.02)
        for event in events:
            event()
            time.sleep(0.4)

    threading.Thread(target=operator, daemon=True).start()
    Launcher(cluster.api(), "lab", pytorchjob(job)).run()


def succeeds(cluster):
    return lambda: cluster.set(JOB.name, "Succeeded")


def test_launcher_logs_job_states(cluster, caplog):
    run_scenario(
        cluster,
        lambda: cluster.set("first", "Created"),
        lambda: cluster.pod("first-master-0", "Pending"),
        lambda: cluster.set("first", "Running", "PyTorchJob first is running."),
        lambda: cluster.pod("first-master-0"),
        succeeds(cluster),
    )
    lines = caplog.messages
    assert lines[0] == "job first: created in namespace lab"
    assert "job first: Running: PyTorchJob first is running." in lines
    assert "job first: Succeeded" in lines
    assert len(lines) == len(set(lines))
    assert cluster.created == 1


def test_launcher_adopts_running_job(cluster, caplog):
    launched = Launcher(cluster.api(), "lab", pytorchjob(JOB))
    cluster.jobs["first"] = launched._manifest
    cluster.jobs["first"]["spec"]["runPolicy"]["suspend"] = False
    cluster.set("first", "Running")
    run_scenario(cluster, lambda: None, succeeds(cluster))
    assert "job first: already Running; attaching" in caplog.messages
    assert cluster.created == 0


def test_launcher_rejects_job_with_other_settings(cluster):
    cluster.jobs["first"] = pytorchjob(Job(name="first", image="other", arguments=[]))
    with pytest.raises(InputError, match=r"already Pending with other settings; .*rarft cancel first"):
        run_scenario(cluster)
    assert (
        cluster.jobs["first"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["image"]
        == "other"
    )


def replace_a_failed_job(cluster):
    """Run the launcher where a job of its name has failed; the new job succeeds."""
    cluster.jobs["first"] = pytorchjob(JOB)
    cluster.set("first", "Failed")

    def operator():
        while not cluster.created:
            time.sleep(0.02)
        cluster.set("first", "Succeeded")

    threading.Thread(target=operator, daemon=True).start()
    Launcher(cluster.api(), "lab", pytorchjob(JOB)).run()


def test_launcher_recreates_failed_job(cluster, caplog):
    replace_a_failed_job(cluster)
    assert "job first: previous job failed; recreating it" in caplog.messages
    assert cluster.created == 1


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (
            {"phase": "Pending", "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
             "message": "0/4 nodes are available: 4 Insufficient nvidia.com/gpu."}]},
            "pod first-worker-0: Pending: Unschedulable: 0/4 nodes are available: 4 Insufficient nvidia.com/gpu.",
        ),
        (
            {"phase": "Pending", **waiting("ImagePullBackOff", 'Back-off pulling image "i"')},
            'pod first-worker-0: Pending: ImagePullBackOff: Back-off pulling image "i"',
        ),
        (
            {"phase": "Running", **waiting("CrashLoopBackOff", "back-off 40s restarting", restarts=3)},
            "pod first-worker-0: Running, restarted 3 times: CrashLoopBackOff: back-off 40s restarting",
        ),
    ],
)  # fmt: skip
def test_launcher_logs_waiting_reason(cluster, caplog, status, message):
    run_scenario(cluster, lambda: cluster.pod("first-worker-0", **status), succeeds(cluster))
    assert message in caplog.messages


def test_launcher_logs_warning_events_once(cluster, caplog):
    cluster.event("somebody-else", "BackOff", "unrelated")
    run_scenario(
        cluster,
        lambda: cluster.pod("first-master-0"),
        lambda: cluster.event("first-master-0", "FailedMount", "secret not found"),
        lambda: cluster.event("first", "FailedCreate", "exceeded quota: gpus"),
        lambda: None,
        succeeds(cluster),
    )
    lines = [line for line in caplog.messages if line.startswith("event: ")]
    assert lines == [
        "event: first-master-0: FailedMount: secret not found",
        "event: first: FailedCreate: exceeded quota: gpus",
    ]


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (terminated(137, "OOMKilled"), r"first-worker-0 exited with code 137 \(OOMKilled\)$"),
        (terminated(1, "Error", "1 train: CUDA error\n1 train: peer"), r"code 1 \(Error\): train: CUDA error$"),
        (
            terminated(1, "Error", TORCHRUN_REPORT),
            r"code 1 \(Error\): rank 3 ended by signal 9$",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."},
            r"code 137 \(Evicted\): The node was low on resource: ephemeral-storage\.$",
        ),
    ],
)  # fmt: skip
def test_launcher_failure_names_cause_after_log(cluster, caplog, status, message):
    report = "E torch.distributed.elastic.multiprocessing.errors: FAILED\n" + "=====\n" * 50
    cluster.logs["first-worker-0"] = f"step 41\nstep 42\n{report}"
    with pytest.raises(ChildFailedError, match=f"job first failed: .*{message}"):
        run_scenario(
            cluster,
            lambda: cluster.pod("first-worker-0", **{"phase": "Failed", **status}),
            lambda: (cluster.remove_pods(), cluster.set("first", "Failed", "has reached the backoff limit")),
        )
    output = "\n".join(caplog.messages)
    assert "first-worker-0 | step 41\nfirst-worker-0 | step 42\npod first-worker-0 exited with" in output
    assert "torch.distributed.elastic" not in output


def test_launcher_reports_first_failure(cluster):
    with pytest.raises(ChildFailedError, match=r"first-worker-0 exited .*OOMKilled"):
        run_scenario(
            cluster,
            lambda: cluster.pod("first-master-1", "Failed", **terminated(1, "Error", "old", "2025-12-31T00:00:00Z")),
            lambda: cluster.pod("first-master-0", "Failed", **terminated(1, "Error", "peer", "2026-01-01T00:00:09Z")),
            lambda: cluster.pod(
                "first-worker-0", "Failed", **terminated(137, "OOMKilled", "", "2026-01-01T00:00:01Z")
            ),
            lambda: cluster.set("first", "Failed"),
        )


def test_launcher_bad_input_deletes_job(cluster):
    ended = terminated(1, "Error", "2 train: --beta: must be at least 0", restarts=1, last=True)
    peer = terminated(1, "Error", "1 train: connection closed by peer", "2026-01-01T00:00:04Z")
    with pytest.raises(InputError, match="job first: train: --beta: must be at least 0"):
        run_scenario(
            cluster,
            lambda: cluster.set("first", "Running"),
            lambda: (cluster.pod("first-master-0", **ended), cluster.pod("first-worker-0", **peer)),
        )
    assert cluster.jobs == {}


def test_launcher_logs_queued_job(cluster, caplog):
    def admitted():
        cluster.jobs["first"]["spec"]["runPolicy"]["suspend"] = False
        cluster.set("first", "Running")

    queued = Job(name="first", image="i", arguments=[], queue="gpus")
    run_scenario(cluster, lambda: cluster.set("first", "Suspended"), admitted, succeeds(cluster), job=queued)
    lines = [line for line in caplog.messages if line.startswith("job first: ")]
    assert lines[1:] == [
        "job first: Queued",
        "job first: Running",
        "job first: Succeeded",
    ]


def test_launcher_repeats_unchanged_state(cluster, caplog, monkeypatch):
    monkeypatch.setattr(job_monitor, "_REMINDER_INTERVAL_S", 0.3)
    run_scenario(cluster, lambda: cluster.set("first", "Created"), *[lambda: None] * 6, succeeds(cluster))
    assert "job first: still Created" in caplog.messages


def test_launcher_reports_deleted_job(cluster):
    with pytest.raises(ChildFailedError, match="job first: deleted while running"):
        run_scenario(cluster, lambda: cluster.jobs.pop("first"))


def test_launcher_retries_transient_errors(cluster, caplog):
    cluster.errors = [503, "cut", 429, 500]
    cluster.cut_watches = 2

    def more_errors():
        cluster.errors = [500, "cut", 502]

    run_scenario(cluster, more_errors, lambda: cluster.set("first", "Running"), more_errors, succeeds(cluster))
    assert any("503 the API server is being upgraded; retrying" in line for line in caplog.messages)
    assert caplog.messages[-1] == "job first: Succeeded"
    assert cluster.created == 1


PERMISSIONS = [
    ("create", "pytorchjobs"), ("get", "pytorchjobs"), ("patch", "pytorchjobs"), ("list", "pods"), ("watch", "pods"),
    ("list", "events"),
]  # fmt: skip


@pytest.mark.parametrize(("verb", "resource"), PERMISSIONS)
def test_launcher_missing_permission_leaves_no_job(cluster, verb, resource):
    cluster.forbidden = {(verb, resource)}
    with pytest.raises(InputError, match=f'cannot {verb} resource "{resource}"; grant it with'):
        run_scenario(cluster)
    assert cluster.jobs == {}


def test_launcher_unreadable_log_keeps_cause(cluster, caplog):
    cluster.forbidden = {("get", "pods/log")}
    with pytest.raises(ChildFailedError, match=r"job first failed: .*code 137 \(OOMKilled\)$"):
        run_scenario(
            cluster,
            lambda: cluster.pod("first-worker-0", "Failed", **terminated(137, "OOMKilled")),
            lambda: cluster.set("first", "Failed"),
        )
    assert any("its log cannot be read: " in line for line in caplog.messages)


def test_launcher_creates_job_suspended(cluster):
    queued = Job(name="first", image="i", arguments=[], queue="gpus")
    for job in (JOB, queued):
        assert Launcher(cluster.api(), "lab", pytorchjob(job))._manifest["spec"]["runPolicy"]["suspend"] is True
    run_scenario(cluster, lambda: None, succeeds(cluster))
    assert cluster.jobs["first"]["spec"]["runPolicy"]["suspend"] is False


def test_launcher_calls_match_role(cluster):
    replace_a_failed_job(cluster)
    cluster.jobs.clear()
    run_scenario(
        cluster,
        lambda: cluster.pod("first-master-0", "Failed", **terminated(1, "Error", last=True, restarts=1)),
        lambda: cluster.set("first", "Running"),
        succeeds(cluster),
    )
    cluster.jobs.clear()
    with pytest.raises(ChildFailedError):
        run_scenario(
            cluster,
            lambda: cluster.pod("first-master-0", "Failed", **terminated(1, "Error")),
            lambda: cluster.set("first", "Failed"),
        )
    bad = terminated(1, "Error", "2 train: no")
    cluster.jobs.clear()
    cluster.remove_pods()
    with pytest.raises(InputError):
        run_scenario(cluster, lambda: cluster.pod("first-master-0", "Failed", **bad))
    role = yaml.safe_load((ROOT / "k8s" / "base" / "role.yaml").read_text())
    granted = {(verb, resource) for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]}
    assert set(cluster.calls) == granted


SCRIPT = """
import sys
from kubernetes import client
from rarft.cluster.launcher import Launcher
from rarft.cluster.pytorchjob import pytorchjob
from rarft.cluster.job_config import Job
configuration = client.Configuration()
configuration.host = sys.argv[1]
launcher = Launcher(client.ApiClient(configuration), "lab", pytorchjob(Job(name="first", image="i", arguments=[])))
print("ready", flush=True)
launcher.run()
"""


@pytest.mark.parametrize("seed", range(8))
def test_launcher_sigterm_leaves_no_job(cluster, seed):
    moment = random.Random(seed)
    cluster.create_takes = moment.choice([0.0, 0.2])
    cluster.errors = moment.choice([[], [503], ["cut"]])
    command = [sys.executable, "-c", SCRIPT, cluster.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        while not cluster.calls:
            time.sleep(0.001)
        time.sleep(moment.choice([0.0, 0.05, 0.15, 0.3, 1.0]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    time.sleep(0.5)  # for a request in flight
    assert cluster.jobs == {}
