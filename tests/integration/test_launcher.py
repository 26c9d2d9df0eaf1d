"""The launcher against a fake Kubernetes API server: log lines, errors, and no orphaned job."""

import contextlib
import threading
import time

import pytest
import yaml

from helpers.cluster_server import Cluster, terminated, waiting
from helpers.launching import EACH_KIND, JOB, QUEUED, add_job, run_scenario, runs, set_intervals, succeeds
from helpers.paths import ROOT
from rarft.cluster import cancel, job_client, job_monitor
from rarft.cluster.job_config import Job
from rarft.cluster.kinds import JOB_KINDS
from rarft.cluster.launcher import Launcher
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
RANK_TRACEBACK = """Traceback (most recent call last):
  File "/app/rarft/cli/main.py", line 4, in main
    raise RuntimeError("CUDA out of memory")
RuntimeError: CUDA out of memory"""
# With a restart of the ranks, and with the end of torchrun, as written by torch 2.13.
TORCHRUN_LOG = f"""step 41
step 42
{RANK_TRACEBACK}
W1126 11:53:07.361000 1 torch/distributed/elastic/multiprocessing/api.py:1028] Sending process 8 closing signal SIGTERM
E1126 11:53:07.365000 1 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 0
step 42
E1126 11:53:07.725000 1 torch/distributed/elastic/multiprocessing/api.py:1002] failed (exitcode: 1) local_rank: 0
Traceback (most recent call last):
  File "/usr/local/bin/torchrun", line 8, in <module>
    sys.exit(main())
             ^^^^^^
  File "/usr/lib/python3/torch/distributed/elastic/multiprocessing/errors/__init__.py", line 380, in wrapper
    return f(*args, **kwargs)
           ^^^^^^^^^^^^^^^^^^
  File "/usr/lib/python3/torch/distributed/launcher/api.py", line 386, in launch_agent
    raise ChildFailedError(
torch.distributed.elastic.multiprocessing.errors.ChildFailedError:
============================================================
rarft.cli FAILED
------------------------------------------------------------
Failures:
  <NO_OTHER_FAILURES>
------------------------------------------------------------
Root Cause (first observed failure):
[0]:
  exitcode  : 1 (pid: 28369)
============================================================
"""


@pytest.fixture
def cluster(monkeypatch, request):
    set_intervals(monkeypatch)
    served = Cluster(getattr(request, "param", "trainjob"))
    yield served
    served.close()


@EACH_KIND
def test_launcher_logs_job_states(cluster, caplog):
    run_scenario(
        cluster,
        lambda: cluster.set("first", "Created", "PyTorchJob first is created."),
        lambda: cluster.pod("first-master-0", "Pending"),
        lambda: cluster.set("first", "Running", "PyTorchJob first is running."),
        lambda: cluster.pod("first-master-0"),
        succeeds(cluster),
    )
    lines = [line for line in caplog.messages if line.startswith("job first: ")]
    states = {
        "pytorchjob": ["Created: PyTorchJob first is created.", "Running: PyTorchJob first is running."],
        "trainjob": ["Pending", "Running"],
    }
    expected = ["created in namespace lab", *states[cluster.kind.name], "Succeeded"]
    lines = [line for line in lines if line != "job first: Pending" or cluster.kind.name == "trainjob"]
    assert lines == [f"job first: {line}" for line in expected]
    assert "pod first-master-0: Pending" in caplog.messages
    assert cluster.created == 1


@EACH_KIND
def test_launcher_job_without_condition_ends_with_its_pods(cluster, caplog):
    """As where the operator is down."""
    done = [lambda name=name: cluster.pod(name, "Succeeded") for name in ("first-master-0", "first-worker-0")]
    run_scenario(cluster, lambda: cluster.pod("first-master-0"), *done)
    assert "job first: Succeeded" in caplog.messages


@EACH_KIND
def test_launcher_adopts_running_job(cluster, caplog):
    add_job(cluster)

    def wait_for_launcher():
        while ("patch", cluster.kind.plural) not in cluster.calls:
            time.sleep(0.05)

    run_scenario(cluster, wait_for_launcher, succeeds(cluster))
    assert "job first: already Running; attaching" in caplog.messages
    assert cluster.created == 1


@EACH_KIND
def test_cancel_deletes_job_of_either_kind(cluster, monkeypatch):
    monkeypatch.setattr(cancel, "connect", cluster.api)
    add_job(cluster)
    assert cancel.cancel("first", "lab") == "lab"
    assert cluster.jobs == {}
    cluster.unknown = {kind.plural for kind in JOB_KINDS.values()} - {cluster.kind.plural}
    with pytest.raises(InputError, match=r"^job first: not found in namespace lab; "):
        cancel.cancel("first", "lab")


@EACH_KIND
def test_launcher_rejects_job_with_other_settings(cluster):
    other = cluster.kind.manifest(Job(name="first", image="other", arguments=[]))
    cluster.add_job(other)
    with pytest.raises(InputError, match=r"already Pending with other settings; .*rarft cancel first"):
        run_scenario(cluster)
    assert cluster.jobs["first"]["spec"] == other["spec"]


def replace_a_failed_job(cluster):
    """Run the launcher where a job of its name has failed; the new job succeeds."""
    add_job(cluster)
    cluster.set("first", "Failed")

    def operator():
        while cluster.created < 2:
            time.sleep(0.02)
        cluster.set("first", "Succeeded")

    threading.Thread(target=operator, daemon=True).start()
    Launcher(cluster.api(), "lab", cluster.kind, JOB).run()


@EACH_KIND
def test_launcher_recreates_failed_job(cluster, caplog):
    replace_a_failed_job(cluster)
    assert "job first: previous job failed; recreating it" in caplog.messages
    assert cluster.created == 2


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


@EACH_KIND
def test_launcher_logs_warning_events_once(cluster, caplog, monkeypatch):
    monkeypatch.setattr(job_client, "_PAGE_SIZE", 50)
    earlier = "2025-12-31T23:00:00Z"
    cluster.event("first", "FailedCreate", "of an earlier job", uid="uid-first-0", at=earlier)
    for number in range(120):  # events of others, in several pages around ours
        cluster.event(f"{'ez'[number % 2]}-{number}", "BackOff", "unrelated")
    children = [
        lambda kind=kind, name=name: [
            cluster.event(name.format("first"), "FailedCreate", "of an earlier job", kind=kind, uid="0", at=earlier),
            cluster.event(name.format("first"), "FailedCreate", "no quota", kind=kind, uid="1"),
        ]
        for kind, name in cluster.kind.children
    ]
    run_scenario(
        cluster,
        lambda: cluster.pod("first-master-0"),
        lambda: cluster.event("first-master-0", "FailedMount", "secret not found"),
        lambda: cluster.event("first", "FailedCreate", "exceeded quota: gpus"),
        *children,
        lambda: None,
        succeeds(cluster),
    )
    lines = [line for line in caplog.messages if line.startswith("event: ")]
    assert sorted(lines) == sorted(
        [
            "event: first-master-0: FailedMount: secret not found",
            "event: first: FailedCreate: exceeded quota: gpus",
            *(f"event: {name.format('first')}: FailedCreate: no quota" for _, name in cluster.kind.children),
        ]
    )


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (terminated(137, "OOMKilled"), r"first-worker-0 exited with code 137 \(OOMKilled\)$"),
        (terminated(1, "Error", "1 train: CUDA error\n1 train: peer"), r"code 1 \(Error\): train: CUDA error$"),
        (
            terminated(1, "Error", TORCHRUN_REPORT),
            r"code 1 \(Error\): rank 3 ended by signal 9$",
        ),
    ],
)  # fmt: skip
def test_launcher_failure_names_cause_after_log(cluster, caplog, status, message):
    cluster.logs["first-worker-0"] = TORCHRUN_LOG
    with pytest.raises(ChildFailedError, match=f"job first failed: .*{message}"):
        run_scenario(
            cluster,
            lambda: cluster.pod("first-worker-0", **{"phase": "Failed", **status}),
            lambda: (cluster.remove_pods(), cluster.set("first", "Failed", "has reached the backoff limit")),
        )
    excerpt = [line.removeprefix("first-worker-0 | ") for line in caplog.messages if " | " in line]
    assert excerpt == ["step 41", "step 42", *RANK_TRACEBACK.splitlines(), "step 42"]
    assert sum(line.startswith("pod first-worker-0 exited with") for line in caplog.messages) == 1


def test_launcher_eviction_is_one_failure(cluster, caplog):
    """It is the cause of the container's end, also for a pod that runs for long; its peers fail as a consequence."""
    reason = {"reason": "Evicted", "message": "The node was low on resource: ephemeral-storage."}
    evicted = {
        "conditions": [{"type": "DisruptionTarget", "status": "True", "lastTransitionTime": "2026-01-01T09:00:00Z"}]
    }
    ended = terminated(143, "Error", "", "2026-01-01T09:00:40Z")
    peer = terminated(1, "Error", "1 train: connection closed by peer", "2026-01-01T09:00:20Z")
    with pytest.raises(ChildFailedError) as failed:
        run_scenario(
            cluster,
            runs(cluster),
            lambda: cluster.pod("first-worker-0", "Failed", **reason, **evicted),
            lambda: cluster.pod("first-worker-0", "Failed", **reason, **evicted, **ended),
            lambda: cluster.pod("first-master-0", "Failed", **peer),
            lambda: cluster.set("first", "Failed"),
        )
    line = "first-worker-0 exited with code 137 (Evicted): The node was low on resource: ephemeral-storage."
    assert str(failed.value) == f"job first failed: {line}"
    assert [each for each in caplog.messages if each.startswith("pod first-worker-0 exited")] == [f"pod {line}"]


@EACH_KIND
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


@EACH_KIND
def test_launcher_logs_queue_reason(cluster, caplog):

    def waits(reason):
        name, uid = cluster.workload("first", reason)
        cluster.event(name, "Inadmissible", reason, kind="Workload", uid=uid)

    def admitted():
        cluster.jobs["first"]["spec"] |= cluster.kind.suspend(False)["spec"]
        cluster.set("first", "Running")
        cluster.pod("first-master-0")

    run_scenario(
        cluster,
        lambda: None,
        lambda: waits("LocalQueue gpus doesn't exist"),
        lambda: waits("request > maximum capacity (16 > 8)"),
        admitted,
        succeeds(cluster),
        job=QUEUED,
    )
    lines = [line for line in caplog.messages if line.startswith(("job first: ", "event: "))]
    assert lines[1:] == [
        "job first: Queued",
        "job first: Queued: LocalQueue gpus doesn't exist",
        "event: job-first-0a1b2: Inadmissible: LocalQueue gpus doesn't exist",
        "job first: Queued: request > maximum capacity (16 > 8)",
        "event: job-first-0a1b2: Inadmissible: request > maximum capacity (16 > 8)",
        "job first: Running",
        "job first: Succeeded",
    ]


def test_launcher_repeats_unchanged_state(cluster, caplog, monkeypatch):
    monkeypatch.setattr(job_monitor, "_REMINDER_INTERVAL_S", 0.3)
    run_scenario(cluster, lambda: None, *[lambda: None] * 6, succeeds(cluster))
    assert "job first: still Pending" in caplog.messages


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
    assert "job first: Succeeded" in caplog.messages
    assert cluster.created == 1


@EACH_KIND
def test_launcher_missing_permission_leaves_no_job(cluster):
    cluster.forbidden = {("create", cluster.kind.plural), ("get", "pods/log"), ("list", "workloads")}
    with pytest.raises(InputError) as failed:
        run_scenario(cluster)
    assert str(failed.value) == (
        f"namespace lab: this account may not create {cluster.kind.plural}, get pods/log; grant it with "
        "`kubectl apply -k k8s/base`, or use another account"
    )
    assert cluster.created == 0


def test_launcher_unreadable_log_keeps_cause(cluster, caplog, monkeypatch):
    monkeypatch.setattr(job_client, "_LOG_TIMEOUT_S", 0.5)
    monkeypatch.setattr(job_client, "_LOG_REQUEST_TIMEOUT_S", (0.3, 0.3))
    cluster.log_takes = 30.0  # as with a node that is lost
    start = time.monotonic()
    with pytest.raises(ChildFailedError, match=r"job first failed: .*code 137 \(OOMKilled\)$"):
        run_scenario(
            cluster,
            lambda: cluster.pod("first-worker-0", "Failed", **terminated(137, "OOMKilled")),
            lambda: cluster.set("first", "Failed"),
        )
    assert time.monotonic() - start < 5
    about_log = [line for line in caplog.messages if "log" in line and not line.startswith("job ")]
    assert len(about_log) == 1
    assert about_log[0].startswith("first-worker-0 | (its log cannot be read: ")


@EACH_KIND
def test_launcher_creates_job_suspended(cluster):
    for job in (JOB, QUEUED):
        assert cluster.kind.is_suspended(Launcher(cluster.api(), "lab", cluster.kind, job)._manifest)
    run_scenario(cluster, lambda: None, succeeds(cluster))
    assert not cluster.kind.is_suspended(cluster.jobs["first"])


def calls_of_all_scenarios(cluster):
    """Return the calls that the launcher makes in runs that end in each way."""
    replace_a_failed_job(cluster)
    failed, bad = terminated(1, "Error"), terminated(1, "Error", "2 train: no")
    for job, end in ((QUEUED, succeeds(cluster)), (JOB, lambda: cluster.set("first", "Failed")), (JOB, None)):
        cluster.jobs.clear()
        cluster.remove_pods()
        pod = failed if end else bad
        with contextlib.suppress(ChildFailedError, InputError):
            run_scenario(
                cluster,
                runs(cluster),
                lambda pod=pod: cluster.pod("first-master-0", "Failed", **pod),
                end or (lambda: None),
                job=job,
            )
    return set(cluster.calls)


def test_launcher_calls_match_role(monkeypatch):
    role = yaml.safe_load((ROOT / "k8s" / "base" / "role.yaml").read_text())
    granted = {
        (verb, f"{resource}") for rule in role["rules"] for resource in rule["resources"] for verb in rule["verbs"]
    }
    used = set()
    for kind in JOB_KINDS:
        served = Cluster(kind)
        set_intervals(monkeypatch)
        used |= calls_of_all_scenarios(served)
        served.close()
    assert used == granted
