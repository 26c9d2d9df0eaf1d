"""Fake Kubernetes API server for jobs, pods, logs and events, over HTTP. Tests set the state of the pods."""

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
    """The server and its objects."""

    def __init__(self):
        self.jobs, self.pods, self.events, self.logs = {}, [], [], {}
        self.quotas, self.nodes = [], []
        self.calls = []  # (verb, resource) of every request
        self.errors = []  # statuses of the next responses; "cut" closes the connection
        self.cut_watches = 0
        self.version, self.changes = 0, []  # pods: (version, kind, pod)
        self.forbidden = set()  # (verb, resource)
        self.create_takes = 0.0  # seconds
        self.created = 0
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def respond(self, value, status=200):
                body = (value if isinstance(value, str) else json.dumps(value)).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain" if isinstance(value, str) else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(body)

            def reject(self, status, message):
                self.respond({"kind": "Status", "status": "Failure", "code": status, "message": message}, status)

            def injects_error(self, verb, resource):
                with outer.lock:
                    outer.calls.append((verb, resource))
                    error = outer.errors.pop(0) if outer.errors else None
                if error == "cut":
                    self.close_connection = True
                    self.connection.close()
                    return True
                if error:
                    self.reject(error, "the API server is being upgraded")
                    return True
                if (verb, resource) in outer.forbidden:
                    self.reject(403, f'{resource} is forbidden: User "rarft" cannot {verb} resource "{resource}"')
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
                    if not self.injects_error("list", "resourcequotas"):
                        self.respond({"kind": "ResourceQuotaList", "metadata": {}, "items": outer.quotas})
                elif url.path == "/api/v1/nodes":
                    if not self.injects_error("list", "nodes"):
                        self.respond({"kind": "NodeList", "metadata": {}, "items": outer.nodes})
                elif url.path.endswith("/localqueues/gpus"):
                    self.respond({"status": {"pendingWorkloads": 3, "admittedWorkloads": 1}})
                elif EVENTS.fullmatch(url.path):
                    if not self.injects_error("list", "events"):
                        assert query["fieldSelector"] == "type=Warning"
                        self.respond({"kind": "EventList", "metadata": {}, "items": outer.events})
                else:
                    self.reject(404, f"not found: {url.path}")

            def get_jobs(self, name, query):
                if name is None:
                    if not self.injects_error("list", "pytorchjobs"):
                        self.respond({"kind": "PyTorchJobList", "metadata": {}, "items": list(outer.jobs.values())})
                elif not self.injects_error("get", "pytorchjobs"):
                    job = outer.jobs.get(name)
                    self.respond(job) if job else self.reject(404, f'pytorchjobs.kubeflow.org "{name}" not found')

            def get_pods(self, log_pod, query):
                if log_pod is not None:
                    if not self.injects_error("get", "pods/log"):
                        assert query["container"] == "pytorch"
                        self.respond(outer.logs.get(log_pod, ""))
                elif query.get("watch"):
                    if not self.injects_error("watch", "pods"):
                        self.watch(float(query["timeoutSeconds"]), int(query.get("resourceVersion") or 0))
                elif not self.injects_error("list", "pods"):
                    key, _, value = query["labelSelector"].partition("=")
                    items = [pod for pod in outer.pods if pod["metadata"]["labels"].get(key) == value]
                    version = {"resourceVersion": str(outer.version)}
                    self.respond({"kind": "PodList", "metadata": version, "items": items})

            def watch(self, seconds, version):
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                deadline = time.monotonic() + seconds
                with contextlib.suppress(OSError), outer.changed:
                    while (remaining := deadline - time.monotonic()) > 0:
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
                        outer.changed.wait(min(remaining, 0.1))
                    self.wfile.write(b"0\r\n\r\n")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                url = urlsplit(self.path)
                if url.path == REVIEW:
                    attributes = body["spec"]["resourceAttributes"]
                    resource = "/".join(
                        part for part in (attributes["resource"], attributes.get("subresource")) if part
                    )
                    allowed = (attributes["verb"], resource) not in outer.forbidden
                    self.respond({**body, "status": {"allowed": allowed}}, 201)
                    return
                if self.injects_error("create", "pytorchjobs"):
                    return
                assert parse_qs(url.query).get("fieldValidation") == ["Strict"]
                name = body["metadata"]["name"]
                with outer.changed:
                    if name in outer.jobs:
                        self.reject(409, f'pytorchjobs "{name}" already exists')
                        return
                time.sleep(outer.create_takes)
                with outer.changed:
                    outer.jobs[name] = body
                    outer.created += 1
                    outer.changed.notify_all()
                self.respond(body, 201)

            def do_PATCH(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                if self.injects_error("patch", "pytorchjobs"):
                    return
                name = JOBS.fullmatch(urlsplit(self.path).path)[2]
                with outer.changed:
                    if name in outer.jobs:
                        outer.jobs[name]["spec"]["runPolicy"].update(body["spec"]["runPolicy"])
                self.respond(outer.jobs[name]) if name in outer.jobs else self.reject(404, f"{name} not found")

            def do_DELETE(self):
                length = int(self.headers.get("Content-Length") or 0)
                self.rfile.read(length)
                if self.injects_error("delete", "pytorchjobs"):
                    return
                name = JOBS.fullmatch(urlsplit(self.path).path)[2]
                with outer.changed:
                    deleted = outer.jobs.pop(name, None)
                    if deleted:
                        outer.remove_pods()
                    outer.changed.notify_all()
                self.respond({"kind": "Status", "status": "Success"}) if deleted else self.reject(
                    404, f"{name} not found"
                )

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def kubeconfig(self, path):
        """Write a kubeconfig for this server."""
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
        """Set the newest condition of a job."""
        with self.changed:
            conditions = self.jobs[name].setdefault("status", {}).setdefault("conditions", [])
            for condition in conditions:
                condition["status"] = "False"
            conditions.append({"type": kind, "status": "True", "message": message})
            self.changed.notify_all()

    def pod(self, name, phase="Running", **status):
        """Create or update a pod."""
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
        """Remove all pods, as the operator does before it sets a job to Failed."""
        with self.changed:
            for pod in self.pods:
                self.version += 1
                removed = {**pod, "metadata": {**pod["metadata"], "resourceVersion": str(self.version)}}
                self.changes.append((self.version, "DELETED", removed))
            self.pods = []
            self.changed.notify_all()

    def event(self, name, reason, message):
        """Create a warning about an object."""
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
    """Return the status of a waiting container."""
    state = {"waiting": {"reason": reason, "message": message}}
    return {"containerStatuses": [_container(state, restarts)]}


def terminated(code, reason, message="", at="2026-01-01T00:00:00Z", restarts=0, last=False):
    """Return the status of a container that ended; with `last`, of one that runs again."""
    ended = {"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": at}}
    if not last:
        return {"containerStatuses": [_container(ended, restarts)]}
    return {"containerStatuses": [{**_container({"running": {}}, restarts), "lastState": ended}]}


def _container(state, restarts):
    return {
        "name": "pytorch", "image": "i", "imageID": "", "ready": False, "restartCount": restarts, "state": state
    }  # fmt: skip
