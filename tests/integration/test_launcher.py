"""The launcher against a server that speaks Kubernetes' API: what it shows, how it ends, that it leaves nothing."""

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
from rarft.cluster import launcher as module
from rarft.cluster.job_config import Job
from rarft.cluster.launcher import Launcher
from rarft.cluster.pytorchjob import pytorchjob
from rarft.errors import ChildFailedError, InputError

ACCOUNT = """
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
    monkeypatch.setattr(module, "_POLL_INTERVAL_S", 0.2)
    monkeypatch.setattr(module, "_LOOK_AT_MOST_EVERY", 0.1)
    monkeypatch.setattr(cluster_api, "_FIRST_WAIT", 0.05)
    served = Cluster()
    yield served
    served.close()


def play(cluster, *acts, job=JOB):
    """Run the launcher; once the job is there, play the acts, with a moment after each."""

    def operator():
        while JOB.name not in cluster.jobs:
            time.sleep(0.02)
        for act in acts:
            act()
            time.sleep(0.4)

    threading.Thread(target=operator, daemon=True).start()
    Launcher(cluster.api(), "lab", pytorchjob(job)).run()


def succeeds(cluster):
    return lambda: cluster.set(JOB.name, "Succeeded")


def test_a_job_is_created_watched_and_ends(cluster, capsys):
    play(
        cluster,
        lambda: cluster.set("first", "Created"),
        lambda: cluster.pod("first-master-0", "Pending"),
        lambda: cluster.set("first", "Running", "PyTorchJob first is running."),
        lambda: cluster.pod("first-master-0"),
        succeeds(cluster),
    )
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "job first: created in namespace lab"
    assert "job first: Running: PyTorchJob first is running." in lines
    assert "job first: Succeeded" in lines
    assert len(lines) == len(set(lines))
    assert cluster.created == 1


def test_a_job_that_is_there_is_adopted(cluster, capsys):
    launched = Launcher(cluster.api(), "lab", pytorchjob(JOB))
    cluster.jobs["first"] = launched._manifest
    cluster.jobs["first"]["spec"]["runPolicy"]["suspend"] = False
    cluster.set("first", "Running")
    play(cluster, lambda: None, succeeds(cluster))
    assert "job first: is there and Running; watching it" in capsys.readouterr().out
    assert cluster.created == 0


def test_a_job_of_the_name_with_other_settings_is_an_error(cluster):
    cluster.jobs["first"] = pytorchjob(Job(name="first", image="other", arguments=[]))
    with pytest.raises(InputError, match=r"one with other settings is there and Pending; .*rarft cancel first"):
        play(cluster)
    assert (
        cluster.jobs["first"]["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"][0]["image"]
        == "other"
    )


def replace_a_failed_job(cluster):
    """Run the launcher where a job of its name has failed; the one that it makes succeeds."""
    cluster.jobs["first"] = pytorchjob(JOB)
    cluster.set("first", "Failed")

    def operator():
        while not cluster.created:
            time.sleep(0.02)
        cluster.set("first", "Succeeded")

    threading.Thread(target=operator, daemon=True).start()
    Launcher(cluster.api(), "lab", pytorchjob(JOB)).run()


def test_a_job_that_failed_before_is_made_anew(cluster, capsys):
    replace_a_failed_job(cluster)
    assert "the one before failed; starting anew" in capsys.readouterr().out
    assert cluster.created == 1


@pytest.mark.parametrize(
    ("status", "told"),
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
def test_what_a_pod_waits_for_is_shown(cluster, capsys, status, told):
    play(cluster, lambda: cluster.pod("first-worker-0", **status), succeeds(cluster))
    assert told in capsys.readouterr().out.splitlines()


def test_warnings_about_the_job_and_its_pods_are_shown_once(cluster, capsys):
    cluster.event("somebody-else", "BackOff", "of no concern")
    play(
        cluster,
        lambda: cluster.pod("first-master-0"),
        lambda: cluster.event("first-master-0", "FailedMount", "secret not found"),
        lambda: cluster.event("first", "FailedCreate", "exceeded quota: gpus"),
        lambda: None,
        succeeds(cluster),
    )
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("event: ")]
    assert lines == [
        "event: first-master-0: FailedMount: secret not found",
        "event: first: FailedCreate: exceeded quota: gpus",
    ]


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (terminated(137, "OOMKilled"), r"first-worker-0 ended with exit code 137 \(OOMKilled\)$"),
        (terminated(1, "Error", "1 train: CUDA error\n1 train: peer"), r"exit code 1 \(Error\): train: CUDA error$"),
        (
            terminated(1, "Error", ACCOUNT),
            r"exit code 1 \(Error\): rank 3 ended by signal 9$",
        ),
        (
            {"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."},
            r"exit code 137 \(Evicted\): The node was low on resource: ephemeral-storage\.$",
        ),
    ],
)  # fmt: skip
def test_a_failure_ends_with_its_cause_after_the_last_lines_of_the_log(cluster, capsys, status, told):
    account = "E torch.distributed.elastic.multiprocessing.errors: FAILED\n" + "=====\n" * 50
    cluster.logs["first-worker-0"] = f"step 41\nstep 42\n{account}"
    with pytest.raises(ChildFailedError, match=f"job first failed: .*{told}"):
        play(
            cluster,
            lambda: cluster.pod("first-worker-0", **{"phase": "Failed", **status}),
            lambda: (cluster.remove_pods(), cluster.set("first", "Failed", "has reached the backoff limit")),
        )
    output = capsys.readouterr().out
    assert "    first-worker-0 | step 41\n    first-worker-0 | step 42\npod first-worker-0 ended with" in output
    assert "torch.distributed.elastic" not in output


def test_of_several_containers_that_failed_the_first_is_told(cluster):
    with pytest.raises(ChildFailedError, match=r"first-worker-0 ended .*OOMKilled"):
        play(
            cluster,
            lambda: cluster.pod("first-master-1", "Failed", **terminated(1, "Error", "old", "2025-12-31T00:00:00Z")),
            lambda: cluster.pod("first-master-0", "Failed", **terminated(1, "Error", "peer", "2026-01-01T00:00:09Z")),
            lambda: cluster.pod(
                "first-worker-0", "Failed", **terminated(137, "OOMKilled", "", "2026-01-01T00:00:01Z")
            ),
            lambda: cluster.set("first", "Failed"),
        )


def test_bad_input_ends_the_job_at_once(cluster):
    ended = terminated(1, "Error", "2 train: --beta: must be at least 0", restarts=1, last=True)
    peer = terminated(1, "Error", "1 train: connection closed by peer", "2026-01-01T00:00:04Z")
    with pytest.raises(InputError, match="job first: train: --beta: must be at least 0"):
        play(
            cluster,
            lambda: cluster.set("first", "Running"),
            lambda: (cluster.pod("first-master-0", **ended), cluster.pod("first-worker-0", **peer)),
        )
    assert cluster.jobs == {}


def test_a_job_in_a_queue_is_shown_as_queued(cluster, capsys):
    def admitted():
        cluster.jobs["first"]["spec"]["runPolicy"]["suspend"] = False
        cluster.set("first", "Running")

    queued = Job(name="first", image="i", arguments=[], queue="gpus")
    play(cluster, lambda: cluster.set("first", "Suspended"), admitted, succeeds(cluster), job=queued)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("job first: ")]
    assert lines[1:] == [
        "job first: Queued: waits for room in its queue",
        "job first: Running",
        "job first: Succeeded",
    ]


def test_what_is_still_waited_for_is_told_from_time_to_time(cluster, capsys, monkeypatch):
    monkeypatch.setattr(module, "_REMIND_EVERY", 0.3)
    play(cluster, lambda: cluster.set("first", "Created"), *[lambda: None] * 6, succeeds(cluster))
    assert "job first: still Created" in capsys.readouterr().out


def test_a_job_deleted_under_it_is_told(cluster):
    with pytest.raises(ChildFailedError, match="job first was deleted while it ran"):
        play(cluster, lambda: cluster.jobs.pop("first"))


def test_errors_that_pass_are_waited_out(cluster, capsys):
    cluster.faults = [503, "cut", 429, 500]
    cluster.cut_watches = 2

    def more_trouble():
        cluster.faults = [500, "cut", 502]

    play(cluster, more_trouble, lambda: cluster.set("first", "Running"), more_trouble, succeeds(cluster))
    output = capsys.readouterr().out
    assert "503 the API server is being upgraded; trying again" in output
    assert output.splitlines()[-1] == "job first: Succeeded"
    assert cluster.created == 1


RIGHTS = [
    ("create", "pytorchjobs"), ("get", "pytorchjobs"), ("patch", "pytorchjobs"), ("list", "pods"), ("watch", "pods"),
    ("list", "events"),
]  # fmt: skip


@pytest.mark.parametrize("right", RIGHTS)
def test_a_missing_right_is_named_and_no_job_is_left(cluster, right):
    cluster.denied = {right}
    with pytest.raises(InputError, match=f'cannot {right[0]} resource "{right[1]}"; grant it by'):
        play(cluster)
    assert cluster.jobs == {}


def test_a_log_that_cannot_be_read_does_not_hide_the_cause(cluster, capsys):
    cluster.denied = {("get", "pods/log")}
    with pytest.raises(ChildFailedError, match=r"job first failed: .*exit code 137 \(OOMKilled\)$"):
        play(
            cluster,
            lambda: cluster.pod("first-worker-0", "Failed", **terminated(137, "OOMKilled")),
            lambda: cluster.set("first", "Failed"),
        )
    assert "its log cannot be read: " in capsys.readouterr().out


def test_a_job_whose_launcher_died_while_creating_it_holds_nothing(cluster):
    queued = Job(name="first", image="i", arguments=[], queue="gpus")
    for job in (JOB, queued):
        assert Launcher(cluster.api(), "lab", pytorchjob(job))._manifest["spec"]["runPolicy"]["suspend"] is True
    play(cluster, lambda: None, succeeds(cluster))
    assert cluster.jobs["first"]["spec"]["runPolicy"]["suspend"] is False


def test_the_role_holds_the_rights_that_the_launcher_uses_and_no_other(cluster):
    replace_a_failed_job(cluster)
    cluster.jobs.clear()
    play(
        cluster,
        lambda: cluster.pod("first-master-0", "Failed", **terminated(1, "Error", last=True, restarts=1)),
        lambda: cluster.set("first", "Running"),
        succeeds(cluster),
    )
    cluster.jobs.clear()
    with pytest.raises(ChildFailedError):
        play(
            cluster,
            lambda: cluster.pod("first-master-0", "Failed", **terminated(1, "Error")),
            lambda: cluster.set("first", "Failed"),
        )
    bad = terminated(1, "Error", "2 train: no")
    cluster.jobs.clear()
    cluster.remove_pods()
    with pytest.raises(InputError):
        play(cluster, lambda: cluster.pod("first-master-0", "Failed", **bad))
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
def test_a_launcher_told_to_stop_at_any_moment_leaves_no_job(cluster, seed):
    moment = random.Random(seed)
    cluster.create_takes = moment.choice([0.0, 0.2])
    cluster.faults = moment.choice([[], [503], ["cut"]])
    command = [sys.executable, "-c", SCRIPT, cluster.url]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        while not cluster.calls:  # the launcher is at work
            time.sleep(0.001)
        time.sleep(moment.choice([0.0, 0.05, 0.15, 0.3, 1.0]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 143
    time.sleep(0.5)  # for a request that was under way
    assert cluster.jobs == {}
