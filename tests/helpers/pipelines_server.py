"""Fake Kubeflow Pipelines API server, and the pods of its runs as a fake Kubernetes API server shows them.

Runs are recorded and not executed. Tests give the states in which a run is shown, one per request.
"""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as kfp

API = "/apis/v2beta1"
STARTED = {"run_id": "r1", "state": "PENDING", "created_at": "2026-01-01T00:00:00Z"}
START, END, NEVER = "2026-01-01T00:00:00Z", "2026-01-01T00:00:55Z", "0001-01-01T00:00:00Z"
WORKFLOW = "rarft-x2k8d"


def node(name, key, state, children=(), template="system-container-impl", error=None):
    """Return a node of a workflow; `key` is the number at the end of its name."""
    ended = state in ("SUCCEEDED", "FAILED", "SKIPPED")
    return kfp.V2beta1PipelineTaskDetail(
        run_id="r1",
        task_id=f"t{key}",
        display_name=name,
        create_time=START,
        start_time=f"2026-01-01T00:00:00.{key:06d}Z",
        end_time=END if ended else NEVER,
        state=state,
        pod_name=f"{WORKFLOW}-{template}-{key}",
        error=kfp.GoogleRpcStatus(message=error) if error else None,
        child_tasks=[kfp.PipelineTaskDetailChildTask(pod_name=f"{WORKFLOW}-{child}") for child in children],
    )


def workflow(**steps):
    """Return the nodes of a workflow as the API lists them: sorted by name, with drivers and executors.

    Args:
        steps: By name: the state of the step, or a list of the states of its attempts. `cached` is a reused step, and
            `driver` one that only its driver has reached.
    """
    nodes = [
        node(WORKFLOW, 1, "RUNNING", [2], "entrypoint"),
        node("root-driver", 2, "SUCCEEDED", [3], "system-dag-driver"),
        node("root", 3, "RUNNING", [100], "root"),
    ]
    for index, (name, state) in enumerate(steps.items(), 1):
        key = 100 * index
        if state == "driver":
            nodes.append(node(f"{name}-driver", key, "PENDING", [], "system-container-driver"))
            continue
        nodes.append(node(f"{name}-driver", key, "SUCCEEDED", [key + 1], "system-container-driver"))
        attempts = state if isinstance(state, list) else []
        latest = attempts[-1] if attempts else state
        node_state = {"cached": "SUCCEEDED", "PENDING": "RUNNING"}.get(latest, latest)
        nodes.append(node(name, key + 1, node_state, [key + 2], "system-container-executor"))
        executor = "SKIPPED" if state == "cached" else latest
        children = [key + 3 + number for number in range(len(attempts))]
        nodes.append(node("executor", key + 2, executor, children or [key + 100]))
        for number, attempt in enumerate(attempts):
            nodes.append(node(f"executor({number})", key + 3 + number, attempt))
    return sorted(nodes, key=lambda each: each.pod_name)


def run(state="RUNNING", nodes=None, **fields):
    """Return a run; without nodes, as before its workflow has started."""
    details = kfp.V2beta1RunDetails(task_details=nodes) if nodes else None
    return kfp.V2beta1Run(
        **{"run_id": "r1", "display_name": "first", "experiment_id": "e1", **fields}, state=state, run_details=details
    )


def pod(step, phase="Running", attempt=None, conditions=(), statuses=()):
    """Return a pod of a step."""
    executor = "executor" if attempt is None else f"executor({attempt})"
    name = f"{WORKFLOW}-system-container-impl-{step}-{attempt or 0}"
    return {
        "metadata": {
            "name": name,
            "uid": name,
            "creationTimestamp": f"2026-01-01T00:00:0{attempt or 0}Z",
            "annotations": {"workflows.argoproj.io/node-name": f"{WORKFLOW}.root.{step}.{executor}"},
            "labels": {"pipeline/runid": "r1"},
        },
        "status": {"phase": phase, "conditions": list(conditions), "containerStatuses": list(statuses)},
    }


def container(**state):
    """Return the status of a pod's container of the component."""
    return {"name": "main", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}


class Endpoint:
    """The server."""

    def __init__(self):
        self.runs, self.experiments, self.tokens = [], [], []
        self.rejections = {}  # path: (status, message)
        self.login_page = False  # respond to every request with a login page
        self.states = []  # of the run r1, or errors, one per request; the last one remains
        self.existing = []  # other runs
        self.logs = {}  # of pods, by name
        self.pods, self.events, self.pod_namespace = [], [], "kubeflow"
        self.list_calls = []  # queries of the requests that list runs
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def _send(self, body, status=200, kind="application/json"):
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _respond(self, value, status=200):
                self._send(json.dumps(value).encode(), status)

            def _is_rejected(self):
                path = self.path.partition("?")[0]
                outer.tokens.append(self.headers.get("Authorization"))
                if outer.login_page:
                    self._send(b"<html>log in</html>", kind="text/html")
                    return True
                if path in outer.rejections:
                    status, message = outer.rejections[path]
                    self._respond({"error": message, "message": message}, status)
                    return True
                return False

            def _not_found(self):
                self._respond({"error": "not found", "code": 5, "message": "not found"}, 404)

            def do_GET(self):
                if self._is_rejected():
                    return
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                if url.path == f"{API}/healthz":
                    self._respond({"multi_user": False})
                elif url.path.startswith(f"{API}/experiments/"):
                    self._respond({"experiment_id": "e1", "namespace": outer.pod_namespace})
                elif url.path == f"{API}/experiments":
                    self._respond({"experiments": outer.experiments})
                elif url.path == f"{API}/runs":
                    self._list_runs(query)
                elif url.path == f"{API}/runs/r1" and outer.states:
                    self._show(outer.states.pop(0) if len(outer.states) > 1 else outer.states[0])
                elif url.path == f"{API}/runs/r1" and outer.runs:
                    self._respond({**outer.runs[0], **STARTED})
                elif found := re.fullmatch(r"/apis/v1alpha1/runs/r1/nodes/(.+)/log", url.path):
                    self._show_log(found[1])
                elif found := re.fullmatch(r"/api/v1/namespaces/(.+?)/(pods|events)(?:/(.+)/log)?", url.path):
                    self._show_pods(found[1], found[2], found[3], query)
                else:
                    self._not_found()

            def _list_runs(self, query):
                outer.list_calls.append(query)
                start, size = int(query.get("page_token") or 0), int(query["page_size"])
                page = outer.existing[start : start + size]
                more = start + size < len(outer.existing)
                runs = [kfp.ApiClient().sanitize_for_serialization(each) for each in page]
                self._respond({"runs": runs, **({"next_page_token": str(start + size)} if more else {})})

            def _show(self, state):
                if callable(state):
                    state = state()
                if state == "login":
                    self._send(b"<html>log in</html>", kind="text/html")
                elif state == "cut":
                    self.close_connection = True
                    self.connection.close()
                elif state == 404:
                    self._not_found()
                elif isinstance(state, int):
                    self._send(b"<html>no healthy upstream</html>", state, "text/html")
                else:
                    self._respond(kfp.ApiClient().sanitize_for_serialization(state))

            def _show_log(self, name):
                if name in outer.logs:
                    self._send(outer.logs[name].encode(), kind="text/plain")
                else:
                    self._respond({"error_message": "pod not found"}, 500)

            def _show_pods(self, namespace, kind, log_pod, query):
                if log_pod:
                    assert query["container"] == "main"
                    lines = outer.logs[log_pod].splitlines()[-int(query["tailLines"]) :]
                    self._send("\n".join(lines).encode(), kind="text/plain")
                elif kind == "events":
                    uid = re.fullmatch("involvedObject.uid=(.+),type=Warning", query["fieldSelector"])[1]
                    items = [event for event in outer.events if event["involvedObject"]["uid"] == uid]
                    self._respond({"kind": "EventList", "metadata": {}, "items": items})
                else:
                    assert query["labelSelector"] == "pipeline/runid=r1"
                    items = outer.pods if namespace == outer.pod_namespace else []
                    self._respond({"kind": "PodList", "metadata": {}, "items": items})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self._is_rejected():
                    return
                if self.path.startswith(f"{API}/experiments"):
                    outer.experiments.append({"experiment_id": "e1", **body})
                    self._respond(outer.experiments[-1])
                elif self.path.startswith(f"{API}/runs"):
                    outer.runs.append(body)
                    self._respond({**body, **STARTED})
                else:
                    self._respond({"error": "not found"}, 404)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def kubeconfig(self):
        """Return a kubeconfig for the pods of this server."""
        return json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "lab"}}],
            }
        )

    def close(self):
        self.server.shutdown()
        self.server.server_close()
