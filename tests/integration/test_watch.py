"""`rarft watch` and `rarft submit --wait` against fake APIs of Kubeflow Pipelines and Kubernetes."""

import _thread
import re
import signal

import pytest

from helpers.pipelines_server import WORKFLOW, Endpoint, container, pod, run, workflow
from pipelines import watch

OOM = container(terminated={"exitCode": 137, "reason": "OOMKilled", "finishedAt": "2026-01-01T00:01:00Z"})
UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/4 nodes are available: 4 Insufficient nvidia.com/gpu.",
}
PULL = container(waiting={"reason": "ImagePullBackOff", "message": "Back-off pulling image i"})
DONE = run("SUCCEEDED", workflow(fingerprint="SUCCEEDED", validate="cached", train="SUCCEEDED"))


@pytest.fixture
def endpoint(monkeypatch, tmp_path):
    served = Endpoint()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.setattr(watch, "_POLL_INTERVAL_S", 0.01)
    yield served
    served.close()


@pytest.fixture
def kubeconfig(endpoint, monkeypatch, tmp_path):
    (tmp_path / "kubeconfig").write_text(endpoint.kubeconfig())
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "kubeconfig"))


@pytest.fixture
def follow(main, endpoint):
    """Function that watches the run r1 through states; it returns the exit code and the lines without their time."""

    def follow(*states):
        endpoint.states = list(states)
        code, _, errors = main("watch", "r1", "--endpoint", endpoint.url)
        return code, [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in errors.splitlines()]

    return follow


def steps_of(lines):
    return [line for line in lines if line.startswith("step ")]


def test_watch_shows_changes_of_steps(follow, endpoint):
    code, lines = follow(
        run("PENDING"),
        run("RUNNING", workflow(fingerprint="driver")),
        run("RUNNING", workflow(fingerprint="PENDING")),
        run("RUNNING", workflow(fingerprint="RUNNING")),
        run("RUNNING", workflow(fingerprint="SUCCEEDED", validate="cached", train="RUNNING")),
        run("RUNNING", workflow(fingerprint="SUCCEEDED", validate="cached", train="RUNNING")),
        DONE,
    )
    assert code == 0, lines
    assert lines[0] == f"run r1: {endpoint.url}/#/runs/details/r1"
    assert [line for line in lines if line.startswith("run r1: ")][1:] == [
        "run r1: Pending", "run r1: Running", "run r1: Succeeded",
    ]  # fmt: skip
    assert steps_of(lines) == [
        "step fingerprint: Pending",
        "step fingerprint: Running",
        "step fingerprint: Succeeded after 55 s",
        "step validate: Succeeded (cached)",
        "step train: Running",
        "step train: Succeeded after 55 s",
    ]
    (notice,) = [line for line in lines if line.startswith("pods: ")]
    assert notice.startswith("pods: what a pending step waits for is not shown: no cluster configured (")


def test_watch_retried_step(follow):
    code, lines = follow(
        run("RUNNING", workflow(embed=["RUNNING"])),
        run("RUNNING", workflow(embed=["FAILED", "PENDING"])),
        run("RUNNING", workflow(embed=["FAILED", "RUNNING"])),
        run("SUCCEEDED", workflow(embed=["FAILED", "SUCCEEDED"])),
    )
    assert code == 0
    assert steps_of(lines) == [
        "step embed: Running",
        "step embed: Pending, attempt 2",
        "step embed: Running, attempt 2",
        "step embed: Succeeded after 55 s, attempt 2",
    ]


def test_watch_failed_step_without_cluster(follow, endpoint):
    """The API serves the log of the pod that it names."""
    log = "\n".join([*(f"line {number}" for number in range(100)), "rarft train: --preset nope: unknown", "main.go:1"])
    endpoint.logs[f"{WORKFLOW}-system-container-impl-202"] = log
    code, lines = follow(run("FAILED", workflow(fingerprint="SUCCEEDED", train="FAILED"), error={"message": "m"}))
    assert code == 1
    assert [line for line in lines if line.startswith("train | ")] == [
        f"train | {line}" for line in log.splitlines()[-30:]
    ]
    page = f"{endpoint.url}/#/runs/details/r1"
    assert lines[-1] == f"rarft watch: run r1 failed: step train: rarft train: --preset nope: unknown; see {page}"


def test_watch_failed_step_without_log(follow):
    code, lines = follow(run("FAILED", workflow(train="FAILED")))
    assert code == 1
    assert f"read log of {WORKFLOW}-system-container-impl-102: Internal Server Error" in lines[-2]
    assert "run r1 failed: step train: no details; see " in lines[-1]


def test_watch_failed_step_with_cluster(follow, endpoint, kubeconfig):
    """A killed container writes no message; its status names the reason."""
    endpoint.pods = [pod("train", "Failed", statuses=[OOM])]
    name = endpoint.pods[0]["metadata"]["name"]
    endpoint.logs[name] = "step 3\nstep 4"
    code, lines = follow(run("FAILED", workflow(train="FAILED")))
    assert code == 1
    assert [line for line in lines if line.startswith("train | ")] == ["train | step 3", "train | step 4"]
    assert f"step train: {name} exited with code 137 (OOMKilled)" in lines[-1]


@pytest.mark.parametrize(
    ("waiting", "message"),
    [
        (pod("train", "Pending", conditions=[UNSCHEDULABLE]), "Pending: Unschedulable: 0/4 nodes are available"),
        (pod("train", "Pending", statuses=[PULL]), "Pending: ImagePullBackOff: Back-off pulling image i"),
        (pod("train", "Pending", attempt=1), "Pending; {pod}: FailedMount: secret not found"),
    ],
)
def test_watch_waiting_pod(follow, endpoint, kubeconfig, waiting, message):
    name = waiting["metadata"]["name"]
    endpoint.pods = [waiting]
    endpoint.events = [
        {
            "metadata": {"name": "e"}, "involvedObject": {"uid": name, "name": name}, "type": "Warning",
            "reason": "FailedMount", "message": "secret not found",
        }
    ]  # fmt: skip
    code, lines = follow(*[run("RUNNING", workflow(train="PENDING"))] * 3, DONE)
    assert code == 0
    (line,) = [line for line in lines if line.startswith("step train: pod ")]
    assert line.startswith(f"step train: pod {name}: {message.format(pod=name)}")


def test_watch_killed_attempt(follow, endpoint, kubeconfig):
    endpoint.pods = [pod("embed", "Failed", attempt=0, statuses=[OOM]), pod("embed", attempt=1)]
    name = endpoint.pods[0]["metadata"]["name"]
    code, lines = follow(*[run("RUNNING", workflow(embed=["FAILED", "RUNNING"]))] * 3, DONE)
    assert code == 0
    assert lines.count(f"step embed: pod {name} exited with code 137 (OOMKilled)") == 1


def test_watch_pods_in_other_namespace(follow, endpoint, kubeconfig, monkeypatch):
    monkeypatch.setattr(endpoint, "pod_namespace", "")  # a single-user server
    code, lines = follow(*[run("RUNNING", workflow(train="PENDING"))] * 3, DONE)
    assert code == 0
    assert lines.count("pods: none of this run in namespace kubeflow; set --namespace to the run's") == 1


def test_watch_unreadable_pods(follow, endpoint, kubeconfig):
    path = "/api/v1/namespaces/kubeflow/pods"
    endpoint.rejections[path] = (403, 'pods is forbidden: User "u" cannot list resource "pods"')
    code, lines = follow(*[run("RUNNING", workflow(train="PENDING"))] * 3, DONE)
    assert code == 0
    (line,) = [line for line in lines if line.startswith("pods: ")]
    assert line.startswith(
        "pods: what a pending step waits for is not shown: list pods in namespace kubeflow: 403 pods"
    )


@pytest.mark.parametrize("error", [401, 403, 404 + 1, 429, 500, 502, 503, "cut", "login"])
def test_watch_survives_errors(follow, endpoint, error):
    """One line when the API fails, one when it answers again; a proxy's error is not the API's."""
    states = [run("RUNNING", workflow(train="RUNNING")), error, error, error, DONE]
    code, lines = follow(*states)
    assert code == 0, lines
    failed = [line for line in lines if "retrying, the run continues" in line]
    assert len(failed) == 1
    assert failed[0].startswith(f"WARNING: {endpoint.url}: ")
    assert lines.count(f"{endpoint.url}: answers again") == 1


@pytest.mark.parametrize(("error", "hint"), [(401, "set KFP_TOKEN"), ("login", "set KFP_TOKEN"), (503, "check the")])
def test_watch_gives_up(follow, monkeypatch, error, hint):
    monkeypatch.setattr(watch, "_DENIED_TIMEOUT_S", 0.1)
    monkeypatch.setattr(watch, "_OUTAGE_TIMEOUT_S", 0.1)
    code, lines = follow(run("RUNNING"), error)
    assert code == 2
    assert "for 0 s; the run continues; " + hint in lines[-1]


@pytest.mark.parametrize(
    ("states", "message"),
    [
        ([run("RUNNING"), run("CANCELING"), run("CANCELED")], "run r1: Canceled; see "),
        ([run("FAILED", error={"message": "exceeded its deadline"})], "run r1: Failed: exceeded its deadline; see "),
        ([run("SKIPPED")], "run r1: Skipped; see "),
        ([run("RUNNING"), 404], "run r1: deleted while it was watched"),
    ],
)
def test_watch_unsuccessful_run(follow, states, message):
    code, lines = follow(*states)
    assert code == 1
    assert lines[-1].startswith(f"rarft watch: {message}")


def test_watch_unknown_run_reads_all_pages(main, endpoint):
    endpoint.existing = [run("SUCCEEDED", run_id=f"id{number}", display_name=f"name{number}") for number in range(250)]
    code, _, errors = main("watch", "name249", "--endpoint", endpoint.url)
    assert code == 2
    assert errors.strip() == "rarft watch: run name249: not found; the newest run of this name has the ID id249"
    assert [query.get("page_token") for query in endpoint.list_calls] == [None, "100", "200"]
    assert {query["sort_by"] for query in endpoint.list_calls} == {"created_at desc"}
    _, _, errors = main("watch", "r9", "--endpoint", endpoint.url)
    assert errors.strip() == "rarft watch: run r9: not found; the newest run is id0 (name0)"


@pytest.mark.parametrize(("status", "message"), [(401, "set KFP_TOKEN"), (503, "is it the Kubeflow Pipelines API")])
def test_watch_rejected_at_start(main, endpoint, status, message):
    endpoint.rejections["/apis/v2beta1/healthz"] = (status, "no")
    code, _, errors = main("watch", "r1", "--endpoint", endpoint.url)
    assert code == 2
    assert message in errors


def test_watch_accepts_page_of_run(main, endpoint, monkeypatch):
    monkeypatch.setenv("KFP_TOKEN", "let-me-in")
    endpoint.states = [DONE]
    code, _, errors = main("watch", f"{endpoint.url}/#/runs/details/r1", "--endpoint", endpoint.url)
    assert code == 0, errors
    assert set(endpoint.tokens) == {"Bearer let-me-in"}


@pytest.fixture
def interrupts():
    """Let Ctrl-C interrupt this process, also where a shell started it in the background, which ignores it."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


def test_watch_interrupted(follow, endpoint, interrupts):
    def interrupt():
        _thread.interrupt_main()
        return run("RUNNING")

    code, lines = follow(run("RUNNING"), interrupt)
    assert code == 130
    assert lines[-1] == f"the run continues; watch it again with `rarft watch r1 --endpoint {endpoint.url}`"


@pytest.mark.usefixtures("compile_once")
@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 1)])
def test_submit_waits(main, endpoint, state, code):
    """An API that fails right after the start does not end the command."""
    endpoint.states = [503, run("RUNNING"), run(state)]
    data = ["-p", "annotations=s3://riq/train.json", "-p", "output_uri=s3://runs/a"]
    exit_code, output, errors = main("submit", "--endpoint", endpoint.url, "--wait", *data)
    assert exit_code == code, errors
    assert output.splitlines()[-1] == f"{endpoint.url}/#/runs/details/r1"
    assert f"run r1: {state.capitalize()}" in errors
