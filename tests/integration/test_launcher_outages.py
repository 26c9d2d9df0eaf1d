"""The launcher while the API server restarts, denies calls, or rejects them: the job runs on, with one line."""

import random
import signal
import subprocess
import sys
import threading
import time

import pytest
from kubernetes import client
from kubernetes.config.incluster_config import InClusterConfigLoader

from helpers.cluster_server import TOO_OLD, Cluster, terminated
from helpers.launching import EACH_KIND, JOB, add_job, run_scenario, runs, set_intervals, succeeds
from rarft.cluster import client as cluster_api
from rarft.cluster import job_client, launcher
from rarft.cluster.kinds import JOB_KINDS
from rarft.cluster.launcher import Launcher
from rarft.errors import ChildFailedError, InputError, report_errors


@pytest.fixture
def cluster(monkeypatch, request):
    set_intervals(monkeypatch)
    served = Cluster(getattr(request, "param", "trainjob"))
    yield served
    served.close()


def retried(caplog):
    """Return the lines about calls that are retried."""
    return [line for line in caplog.messages if "; retrying for up to" in line]


def restart(cluster, down_s, denied_s=0.3, unavailable_s=0.2):
    cluster.stop()
    time.sleep(down_s)
    cluster.start(denied_s, unavailable_s)


def test_restart_of_the_api_server(cluster, caplog):
    run_scenario(cluster, runs(cluster), lambda: restart(cluster, 0.8), lambda: None, succeeds(cluster))
    (line,) = retried(caplog)
    assert line.split(" job first: ")[1].startswith("[Errno 111] Connection refused; retrying for up to 86400 s")
    assert ("delete", cluster.kind.plural) not in cluster.calls
    assert "job first: Succeeded" in caplog.messages


@EACH_KIND
def test_denied_read_does_not_delete_the_job(cluster, caplog, monkeypatch):
    """It is believed after minutes, and the job runs on."""
    monkeypatch.setattr(launcher, "_DENIAL_TIMEOUT_S", 1.0)
    with pytest.raises(InputError) as failed:
        run_scenario(cluster, runs(cluster), lambda: cluster.forbidden.add(("get", cluster.kind.plural)))
    plural = cluster.kind.plural
    assert str(failed.value) == (
        f'get job first: {plural} is forbidden: User "rarft" cannot get resource "{plural}" in API group ""; grant it '
        "with `kubectl apply -k k8s/base`, or use another account"
    )
    assert len(retried(caplog)) == 1
    assert caplog.messages[-1] == "job first: keeps running; rerun to attach, or use `rarft cancel first`"
    assert ("delete", plural) not in cluster.calls


@pytest.mark.parametrize("call", ["pods list", "pods watch", "events list"])
def test_denial_of_each_read_is_waited_for(cluster, call):
    resource, verb = call.split()

    def deny():
        cluster.forbidden = {(verb, resource)}

    def grant():
        cluster.forbidden = set()

    run_scenario(cluster, runs(cluster), deny, grant, succeeds(cluster))
    assert ("delete", cluster.kind.plural) not in cluster.calls


@EACH_KIND
def test_custom_resources_that_load_late_are_waited_for(cluster):
    """For a moment the server does not know the kind, which does not mean that the job was deleted."""
    unload = lambda: cluster.unknown.add(cluster.kind.plural)  # noqa: E731
    run_scenario(cluster, runs(cluster), unload, lambda: cluster.unknown.clear(), succeeds(cluster))
    assert ("delete", cluster.kind.plural) not in cluster.calls


def test_token_rotation(cluster, tmp_path, caplog):
    (tmp_path / "token").write_text("one")
    (tmp_path / "ca").write_text("unused")
    environment = {"KUBERNETES_SERVICE_HOST": "h", "KUBERNETES_SERVICE_PORT": "1"}
    loader = InClusterConfigLoader(str(tmp_path / "token"), str(tmp_path / "ca"), environ=environment)
    loader._token_refresh_period *= 0.01  # 0.6 s instead of a minute
    configuration = client.Configuration()
    loader.load_and_set(configuration)
    loader.host = configuration.host = cluster.url
    configuration.ssl_ca_cert = loader.ssl_ca_cert = None
    configuration.retries = False
    cluster.token = "one"

    def operator():
        while "first" not in cluster.jobs:
            time.sleep(0.02)
        cluster.token = "two"
        (tmp_path / "token").write_text("two")
        time.sleep(1.5)
        cluster.set("first", "Succeeded")

    threading.Thread(target=operator, daemon=True).start()
    Launcher(client.ApiClient(configuration), "lab", cluster.kind, JOB).run()
    assert len(retried(caplog)) <= 1
    assert ("delete", cluster.kind.plural) not in cluster.calls


REJECTIONS = {
    "webhook": (400, 'admission webhook "validator.example.com" denied the request: spec: invalid', "change what it"),
    "webhook 403": (403, 'admission webhook "policy.example.com" denied the request: label', "change what it names"),
    "quota": (403, 'jobs "first" is forbidden: exceeded quota: gpus, requested: count=1, limited: count=1',
              "delete other objects, or ask for a larger quota"),
    "plugin": (403, 'jobs "first" is forbidden: maximum cpu usage per Pod is 4', "change what it names"),
    "field": (422, 'jobs "first" is invalid: spec.x: Required value', "check the settings of the job"),
}  # fmt: skip


@pytest.mark.parametrize("rejection", REJECTIONS.values(), ids=REJECTIONS)
def test_rejected_job(cluster, rejection, caplog):
    status, message, hint = rejection
    cluster.answers["create", cluster.kind.plural] = (status, message)
    with pytest.raises(InputError) as failed:
        run_scenario(cluster)
    assert str(failed.value).startswith(f"create job first: {message}; {hint}")
    assert "kubectl apply" not in str(failed.value)
    assert caplog.messages == []


WEBHOOK_DOWN = 'Internal error occurred: failed calling webhook "v.example.com": connect: connection refused'


def test_webhook_that_is_down(cluster, caplog, monkeypatch):
    """It is one line, and another if it stays down."""
    create = ("create", cluster.kind.plural)
    cluster.answers[create] = (500, WEBHOOK_DOWN)
    threading.Timer(1.0, cluster.answers.clear).start()
    run_scenario(cluster, succeeds(cluster))
    assert retried(caplog) == [f"create job first: 500 {WEBHOOK_DOWN}; retrying for up to 300 s"]
    caplog.clear()
    cluster.jobs.clear()
    cluster.answers[create] = (500, WEBHOOK_DOWN)
    monkeypatch.setattr(cluster_api.call_with_retry, "__kwdefaults__", {
        **cluster_api.call_with_retry.__kwdefaults__, "timeout_s": 1.0
    })  # fmt: skip
    with pytest.raises(ChildFailedError) as failed:
        run_scenario(cluster)
    assert str(failed.value) == f"create job first: {WEBHOOK_DOWN}; start the webhook's server"
    assert len(retried(caplog)) == 1


def test_admission_that_is_not_ready(cluster, caplog):
    create = ("create", cluster.kind.plural)
    cluster.answers[create] = (403, 'jobs "first" is forbidden: not yet ready to handle request')
    threading.Timer(0.8, cluster.answers.clear).start()
    run_scenario(cluster, succeeds(cluster))
    assert len(retried(caplog)) == 1


@EACH_KIND
def test_operator_that_is_not_installed(cluster):
    cluster.unknown = {cluster.kind.plural}
    with pytest.raises(InputError) as failed:
        run_scenario(cluster)
    assert str(failed.value) == f"create job first: 404 page not found; is {cluster.kind.operator} installed?"


def test_compaction(cluster, caplog, monkeypatch):
    """A watch from a version that is gone starts from the present, and a list whose next page is gone starts again."""
    monkeypatch.setattr(job_client, "_PAGE_SIZE", 2)
    for number in range(5):
        cluster.event(f"other-{number}", "BackOff", "unrelated")
    pages = iter([True, False] * 100)
    handler_list = cluster._handler.list

    def list_with_compaction(self, kind, items, query):
        if kind == "EventList" and "continue" in query and next(pages):
            cluster.compact()
        handler_list(self, kind, items, query)

    monkeypatch.setattr(cluster._handler, "list", list_with_compaction)
    run_scenario(
        cluster,
        runs(cluster),
        cluster.compact,
        lambda: cluster.event("first-worker-0", "BackOff", "after the compaction"),
        lambda: cluster.pod("first-worker-0", "Failed", **terminated(1, "Error", last=True)),
        succeeds(cluster),
    )
    assert "event: first-worker-0: BackOff: after the compaction" in caplog.messages
    assert sum(line.startswith("pod first-worker-0 exited with code 1") for line in caplog.messages) == 1
    assert TOO_OLD not in caplog.text


@EACH_KIND
def test_lost_response_of_the_creation(cluster, caplog):
    cluster.lost_responses = 1
    run_scenario(cluster, runs(cluster), succeeds(cluster))
    assert cluster.created == 1
    assert any(line.startswith("job first: already ") for line in caplog.messages)


def test_pods_of_an_earlier_job_are_ignored(cluster, caplog):
    """They may still end when the new job starts."""
    cluster.pod("first-worker-9")
    cluster.now = "2026-01-01T00:10:00Z"
    run_scenario(
        cluster,
        lambda: cluster.pod("first-worker-9", "Failed", **terminated(2, "Error", "2 train: --beta: bad")),
        runs(cluster),
        succeeds(cluster),
    )
    assert not any("first-worker-9" in line for line in caplog.messages)


def seeds(number, ordinary):
    """Return seeds; those after the first few run with the marker `long`."""
    return [pytest.param(seed, marks=[pytest.mark.long] * (seed >= ordinary)) for seed in range(number)]


@pytest.mark.parametrize("seed", seeds(50, ordinary=3))
def test_restarts_at_random_moments(monkeypatch, seed):
    """The API server is down for 0 to 30 s, in a fiftieth of the time; the job ends meanwhile, or later."""
    moment = random.Random(seed)
    set_intervals(monkeypatch)
    monkeypatch.setattr(cluster_api, "_INITIAL_DELAY_S", 0.02)
    served = Cluster(moment.choice(list(JOB_KINDS)))
    end, code = moment.choice([("Succeeded", 0), ("Failed", 1)])

    def restarts():
        for _ in range(moment.randint(1, 4)):
            time.sleep(moment.uniform(0, 0.8))
            restart(served, moment.uniform(0, 0.6), moment.uniform(0, 0.6), moment.uniform(0, 0.3))

    thread = threading.Thread(target=restarts, daemon=True)
    start = moment.choice([lambda: None, thread.start])
    if start == thread.start:
        monkeypatch.setattr(launcher, "_STARTUP_DENIAL_TIMEOUT_S", 5.0)
    else:
        start = runs(served)
    events = [runs(served), lambda: None if thread.is_alive() else thread.start(), lambda: served.set("first", end)]
    try:
        exit_code = 0
        try:
            with report_errors("launch_job"):
                run_scenario(served, *events, pause=moment.uniform(0, 1.5))
        except SystemExit as ended:
            exit_code = ended.code
        thread.join()
        assert exit_code == code
        assert ("delete", served.kind.plural) not in served.calls
        assert set(served.jobs) == {"first"}
    finally:
        served.close()


SCRIPT = """
import sys
from kubernetes import client
from rarft.cluster import client as cluster_api
from rarft.cluster.kinds import JOB_KINDS
from rarft.cluster.launcher import Launcher
from rarft.cluster.job_config import Job
cluster_api._INITIAL_DELAY_S = 0.1
configuration = client.Configuration()
configuration.host, configuration.retries = sys.argv[1], False
job = Job(name="first", image="i", arguments=[])
launcher = Launcher(client.ApiClient(configuration), "lab", JOB_KINDS[sys.argv[2]], job)
print("ready", flush=True)
launcher.run()
"""


@pytest.mark.parametrize("seed", seeds(40, ordinary=4))
def test_sigterm_while_the_api_server_is_away(seed):
    """It is away around the signal, for a part of the grace period; no job is left."""
    moment = random.Random(seed)
    served = Cluster(moment.choice(list(JOB_KINDS)))
    served.create_takes = moment.choice([0.0, 0.2])
    served.lost_responses = moment.choice([0, 1])
    command = [sys.executable, "-c", SCRIPT, served.url, served.kind.name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        while not served.calls:  # the permissions are there
            time.sleep(0.001)
        time.sleep(moment.choice([0.0, 0.05, 0.15, 0.3, 1.0]))
        actions = [served.stop, lambda: process.send_signal(signal.SIGTERM)]
        for action in moment.sample(actions, 2):
            action()
            time.sleep(moment.choice([0.0, 0.02, 0.3]))
        time.sleep(moment.uniform(0, 3))
        served.start(moment.uniform(0, 1), moment.uniform(0, 0.5))
        assert process.wait(timeout=30) == 143
    time.sleep(0.5)  # for a request in flight
    assert served.jobs == {}
    served.close()


@EACH_KIND
def test_sigterm_leaves_the_job_of_another(cluster):
    add_job(cluster)
    cluster.jobs["first"]["metadata"]["annotations"] = {}
    stopped = Launcher(cluster.api(), "lab", cluster.kind, JOB)
    pid_exits = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(launcher.os, "_exit", pid_exits.append)
        stopped._on_sigterm(signal.SIGTERM, None)
    assert pid_exits == [143]
    assert set(cluster.jobs) == {"first"}
