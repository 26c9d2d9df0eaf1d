"""Stands for a Kubernetes API server: its requests and answers for jobs, pods, logs and events, over HTTP.

Nothing runs in it: a test says what has become of the pods.
"""

import contextlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

JOBS = re.compile(r"/apis/kubeflow\.org/v1/namespaces/([^/]+)/pytorchjobs(?:/([^/]+))?")
PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+)/log)?")
EVENTS = re.compile(r"/api/v1/namespaces/([^/]+)/events")
QUOTAS = re.compile(r"/api/v1/namespaces/([^/]+)/resourcequotas")
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


class Cluster:
    """The server and what it holds."""

    def __init__(self):
        self.jobs, self.pods, self.events, self.logs = {}, [], [], {}
        self.quotas, self.nodes = [], []
        self.calls = []  # (verb, resource) of every request, as a Role names them
        self.faults = []  # status of the next answers, in place of theirs; "cut" closes the connection
        self.cut_watches = 0
        self.version, self.changes = 0, []  # of pods: (version, kind, pod)
        self.denied = set()  # (verb, resource) that this account may not do
        self.create_takes = 0.0  # seconds
        self.created = 0
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self, value, status=200):
                body = (value if isinstance(value, str) else json.dumps(value)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(value, str) else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def refuse(self, status, message):
                self.answer({"kind": "Status", "status": "Failure", "code": status, "message": message}, status)

            def stands_in_the_way(self, verb, resource):
                with outer.lock:
                    outer.calls.append((verb, resource))
                    fault = outer.faults.pop(0) if outer.faults else None
                if fault == "cut":
                    self.close_connection = True
                    self.connection.close()
                    return True
                if fault:
                    self.refuse(fault, "the API server is being upgraded")
                    return True
                if (verb, resource) in outer.denied:
                    self.refuse(403, f'{resource} is forbidden: User "rarft" cannot {verb} resource "{resource}"')
                    return True
                return False

            def do_GET(self):
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                if found := JOBS.fullmatch(url.path):
                    self.get_jobs(found[2], query)
                elif found := PODS.fullmatch(url.path):
                    self.get_pods(found[2], query)
                elif QUOTAS.fullmatch(url.path):
                    if not self.stands_in_the_way("list", "resourcequotas"):
                        self.answer({"kind": "ResourceQuotaList", "metadata": {}, "items": outer.quotas})
                elif url.path == "/api/v1/nodes":
                    if not self.stands_in_the_way("list", "nodes"):
                        self.answer({"kind": "NodeList", "metadata": {}, "items": outer.nodes})
                elif url.path.endswith("/localqueues/gpus"):
                    self.answer({"status": {"pendingWorkloads": 3, "admittedWorkloads": 1}})
                elif EVENTS.fullmatch(url.path):
                    if not self.stands_in_the_way("list", "events"):
                        assert query["fieldSelector"] == "type=Warning"
                        self.answer({"kind": "EventList", "metadata": {}, "items": outer.events})
                else:
                    self.refuse(404, f"no such thing: {url.path}")

            def get_jobs(self, name, query):
                if name is None:
                    if not self.stands_in_the_way("list", "pytorchjobs"):
                        self.answer({"kind": "PyTorchJobList", "metadata": {}, "items": list(outer.jobs.values())})
                elif not self.stands_in_the_way("get", "pytorchjobs"):
                    job = outer.jobs.get(name)
                    self.answer(job) if job else self.refuse(404, f'pytorchjobs.kubeflow.org "{name}" not found')

            def get_pods(self, log_of, query):
                if log_of is not None:
                    if not self.stands_in_the_way("get", "pods/log"):
                        assert query["container"] == "pytorch"
                        self.answer(outer.logs.get(log_of, ""))
                elif query.get("watch"):
                    if not self.stands_in_the_way("watch", "pods"):
                        self.watch(float(query["timeoutSeconds"]), int(query.get("resourceVersion") or 0))
                elif not self.stands_in_the_way("list", "pods"):
                    key, _, value = query["labelSelector"].partition("=")
                    items = [pod for pod in outer.pods if pod["metadata"]["labels"].get(key) == value]
                    version = {"resourceVersion": str(outer.version)}
                    self.answer({"kind": "PodList", "metadata": version, "items": items})

            def watch(self, seconds, version):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                ends = time.monotonic() + seconds
                with contextlib.suppress(OSError), outer.changed:
                    while (left := ends - time.monotonic()) > 0:
                        for number, kind, pod in [change for change in outer.changes if change[0] > version]:
                            line = (json.dumps({"type": kind, "object": pod}) + "\n").encode()
                            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
                            self.wfile.flush()
                            version = number
                        if outer.cut_watches:
                            outer.cut_watches -= 1
                            self.close_connection = True
                            self.connection.close()
                            return
                        outer.changed.wait(min(left, 0.1))
                    self.wfile.write(b"0\r\n\r\n")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                url = urlsplit(self.path)
                if url.path == REVIEW:
                    asked = body["spec"]["resourceAttributes"]
                    resource = "/".join(part for part in (asked["resource"], asked.get("subresource")) if part)
                    allowed = (asked["verb"], resource) not in outer.denied
                    self.answer({**body, "status": {"allowed": allowed}}, 201)
                    return
                if self.stands_in_the_way("create", "pytorchjobs"):
                    return
                assert parse_qs(url.query).get("fieldValidation") == ["Strict"]
                name = body["metadata"]["name"]
                with outer.changed:
                    if name in outer.jobs:
                        self.refuse(409, f'pytorchjobs "{name}" already exists')
                        return
                time.sleep(outer.create_takes)
                with outer.changed:
                    outer.jobs[name] = body
                    outer.created += 1
                    outer.changed.notify_all()
                self.answer(body, 201)

            def do_PATCH(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.stands_in_the_way("patch", "pytorchjobs"):
                    return
                name = JOBS.fullmatch(urlsplit(self.path).path)[2]
                with outer.changed:
                    if name in outer.jobs:
                        outer.jobs[name]["spec"]["runPolicy"].update(body["spec"]["runPolicy"])
                self.answer(outer.jobs[name]) if name in outer.jobs else self.refuse(404, f"{name} not found")

            def do_DELETE(self):
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                if self.stands_in_the_way("delete", "pytorchjobs"):
                    return
                name = JOBS.fullmatch(urlsplit(self.path).path)[2]
                with outer.changed:
                    gone = outer.jobs.pop(name, None)
                    if gone:
                        outer.remove_pods()
                    outer.changed.notify_all()
                self.answer({"kind": "Status", "status": "Success"}) if gone else self.refuse(404, f"{name} not found")

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def kubeconfig(self, path):
        """Write a kubeconfig that leads here."""
        path.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "c",
                    "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                    "users": [{"name": "u", "user": {}}],
                    "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "lab"}}],
                }
            )
        )
        return path

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def api(self):
        configuration = client.Configuration()
        configuration.host = self.url
        return client.ApiClient(configuration)

    def set(self, name, kind, message=""):
        """Let the operator say that the job is in this state."""
        with self.changed:
            conditions = self.jobs[name].setdefault("status", {}).setdefault("conditions", [])
            for condition in conditions:
                condition["status"] = "False"
            conditions.append({"type": kind, "status": "True", "message": message})
            self.changed.notify_all()

    def pod(self, name, phase="Running", **status):
        """Let there be a pod, or let it be so."""
        with self.changed:
            known = any(pod["metadata"]["name"] == name for pod in self.pods)
            self.pods = [pod for pod in self.pods if pod["metadata"]["name"] != name]
            self.version += 1
            pod = {
                "metadata": {
                    "name": name,
                    "uid": name,
                    "resourceVersion": str(self.version),
                    "creationTimestamp": "2026-01-01T00:00:00Z",
                    "labels": {"rarft.io/job": name.split("-")[0]},
                },
                "status": {"phase": phase, **status},
            }
            self.pods.append(pod)
            self.changes.append((self.version, "MODIFIED" if known else "ADDED", pod))
            self.changed.notify_all()

    def remove_pods(self):
        """Remove all pods, as the operator does before it says that a job failed."""
        with self.changed:
            for pod in self.pods:
                self.version += 1
                gone = {**pod, "metadata": {**pod["metadata"], "resourceVersion": str(self.version)}}
                self.changes.append((self.version, "DELETED", gone))
            self.pods = []
            self.changed.notify_all()

    def event(self, name, reason, message):
        """Let there be a warning about an object."""
        with self.changed:
            self.events.append(
                {
                    "metadata": {"name": f"e{len(self.events)}", "uid": f"e{len(self.events)}"},
                    "involvedObject": {"name": name},
                    "type": "Warning",
                    "reason": reason,
                    "message": message,
                    "count": 1,
                }
            )


def waiting(reason, message="", restarts=0):
    """A container that waits."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [_container(state, restarts)]}


def terminated(code, reason, message="", at="2026-01-01T00:00:00Z", restarts=0, last=False):
    """A container that ended, for good or before its present start."""
    ended = {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": at}}
    if not last:
        return {"containerStatuses": [_container(ended, restarts)]}
    return {"containerStatuses": [{**_container({"running": {}}, restarts), "lastState": ended}]}


def _container(state, restarts):
    return {
        "name": "pytorch", "image": "i", "imageID": "", "ready": False, "restartCount": restarts, "state": state
    }  # fmt: skip
