"""Fake Kubernetes API server for jobs, pods, logs, events and queues, over HTTP. Tests set the state of the pods.

It behaves like kube-apiserver 1.36 where that was measured: after each start it answers 403 for a moment, then 503;
lists are in the order of names, in pages; a watch from a version that was compacted away ends with 410.
"""

import base64
import contextlib
import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from kubernetes import client

from rarft.cluster.kinds import JOB_KINDS

_GROUPS = "|".join(re.escape(f"{kind.group}/{kind.version}") for kind in JOB_KINDS.values())
_PLURALS = "|".join(kind.plural for kind in JOB_KINDS.values())
JOBS = re.compile(rf"/apis/({_GROUPS})/namespaces/([^/]+)/(?P<plural>{_PLURALS})(?:/(?P<name>[^/]+))?")
PODS = re.compile(r"/api/v1/namespaces/([^/]+)/pods(?:/([^/]+)/log)?")
EVENTS = re.compile(r"/api/v1/namespaces/([^/]+)/events")
QUOTAS = re.compile(r"/api/v1/namespaces/([^/]+)/resourcequotas")
QUEUES = re.compile(r"/apis/kueue\.x-k8s\.io/v1beta2/namespaces/([^/]+)/localqueues/([^/]+)")
NAMESPACES = re.compile(r"/api/v1/namespaces/([^/]+)")
WORKLOADS = re.compile(r"/apis/kueue\.x-k8s\.io/v1beta2/namespaces/([^/]+)/workloads")
REVIEW = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
TOO_OLD = "The provided continue parameter is too old to display a consistent list result."


class _Handler(BaseHTTPRequestHandler):
    """Requests; the server is the attribute `cluster` of a subclass."""

    protocol_version = "HTTP/1.1"
    cluster: "Cluster"

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

    def reject(self, status, message, name=None):
        details = {"details": {"name": name}} if name else {}
        self.respond({"kind": "Status", "status": "Failure", "code": status, "message": message, **details}, status)

    def not_found(self, resource, name):
        self.reject(404, f'{resource} "{name}" not found', name)

    def cut(self):
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(2)
        self.connection.close()

    def is_answered(self, verb, resource):
        """Answer a request that does not reach the objects."""
        cluster = self.cluster
        if self.server is not cluster.server:  # a connection to the server before its restart
            self.cut()
            return True
        with cluster.lock:
            if resource != "selfsubjectaccessreviews":
                cluster.calls.append((verb, resource))
            error = cluster.errors.pop(0) if cluster.errors else None
            started = time.monotonic() - cluster.started_at
        forbidden = f'{resource} is forbidden: User "rarft" cannot {verb} resource "{resource}" in API group ""'
        if error == "cut":
            self.cut()
        elif error:
            self.reject(error, "the API server is being upgraded")
        elif started < cluster.denied_s:
            self.reject(403, forbidden)
        elif started < cluster.denied_s + cluster.unavailable_s:
            self.reject(503, "apiserver not ready")
        elif cluster.token and self.headers.get("Authorization", "").lower() != f"bearer {cluster.token}":
            self.reject(401, "Unauthorized")
        elif (verb, resource) in cluster.forbidden:
            self.reject(403, forbidden)
        elif (verb, resource) in cluster.answers:
            self.reject(*cluster.answers[verb, resource])
        elif resource in cluster.unknown:
            self.respond("404 page not found\n", 404)
        else:
            return False
        return True

    def read_body(self):
        return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

    def do_GET(self):
        cluster, url = self.cluster, urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if found := JOBS.fullmatch(url.path):
            self.get_jobs(found["plural"], found["name"], query)
        elif found := PODS.fullmatch(url.path):
            self.get_pods(found[2], query)
        elif QUOTAS.fullmatch(url.path):
            if not self.is_answered("list", "resourcequotas"):
                self.respond({"kind": "ResourceQuotaList", "metadata": {}, "items": cluster.quotas})
        elif url.path == "/api/v1/nodes":
            if not self.is_answered("list", "nodes"):
                self.respond({"kind": "NodeList", "metadata": {}, "items": cluster.nodes})
        elif found := QUEUES.fullmatch(url.path):
            if not self.is_answered("get", "localqueues"):
                if found[2] == "gpus":
                    self.respond({"status": {"pendingWorkloads": 3, "admittedWorkloads": 1}})
                else:
                    self.not_found("localqueues", found[2])
        elif found := NAMESPACES.fullmatch(url.path):
            if not self.is_answered("get", "namespaces"):
                exists = found[1] == "lab"
                self.respond({"metadata": {"name": "lab"}}) if exists else self.not_found("namespaces", found[1])
        elif WORKLOADS.fullmatch(url.path):
            if not self.is_answered("list", "workloads"):
                self.list("WorkloadList", cluster.workloads, query)
        elif EVENTS.fullmatch(url.path):
            if not self.is_answered("list", "events"):
                assert query["fieldSelector"] == "type=Warning"
                self.list("EventList", cluster.events, query)
        else:
            self.reject(404, f"not found: {url.path}")

    def list(self, kind, items, query):
        """Answer with a page of the objects that a label selector selects, in the order of their names."""
        cluster = self.cluster
        with cluster.lock:
            if selector := query.get("labelSelector"):
                key, _, value = selector.partition("=")
                items = [item for item in items if item["metadata"].get("labels", {}).get(key) == value]
            items, version = sorted(items, key=lambda item: item["metadata"]["name"]), cluster.version
            if token := query.get("continue"):
                after, version = json.loads(base64.b64decode(token))
                if version < cluster.compacted:
                    self.reject(410, TOO_OLD)
                    return
                items = [item for item in items if item["metadata"]["name"] > after]
            limit = int(query.get("limit") or 0) or len(items)
        metadata = {"resourceVersion": str(version)}
        if len(items) > limit:
            token = json.dumps([items[limit - 1]["metadata"]["name"], version])
            metadata["continue"] = base64.b64encode(token.encode()).decode()
        self.respond({"kind": kind, "metadata": metadata, "items": items[:limit]})

    def get_jobs(self, plural, name, query):
        jobs = self.cluster.jobs if plural == self.cluster.kind.plural else {}
        if name is None:
            if not self.is_answered("list", plural):
                self.list("JobList", jobs.values(), query)
        elif not self.is_answered("get", plural):
            self.respond(jobs[name]) if name in jobs else self.not_found(plural, name)

    def get_pods(self, log_pod, query):
        cluster = self.cluster
        if log_pod is not None:
            if not self.is_answered("get", "pods/log"):
                assert query["container"] == cluster.kind.container
                time.sleep(cluster.log_takes)
                self.respond(cluster.logs.get(log_pod, ""))
        elif query.get("watch"):
            if not self.is_answered("watch", "pods"):
                self.watch(float(query["timeoutSeconds"]), int(query.get("resourceVersion") or 0))
        elif not self.is_answered("list", "pods"):
            assert query["labelSelector"].startswith(f"{cluster.kind.pod_label}=")
            self.list("PodList", cluster.pods, query)

    def watch(self, seconds, version):
        cluster = self.cluster
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

        def send(kind, value):
            line = (json.dumps({"type": kind, "object": value}) + "\n").encode()
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
            self.wfile.flush()

        deadline = time.monotonic() + seconds
        with contextlib.suppress(OSError), cluster.changed:
            while (remaining := deadline - time.monotonic()) > 0:
                if 0 < version < cluster.compacted:
                    send("ERROR", {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"})
                    break
                for number, kind, pod in [change for change in cluster.changes if change[0] > version]:
                    send(kind, pod)
                    version = number
                if cluster.cut_watches or self.server is not cluster.server:
                    cluster.cut_watches = max(0, cluster.cut_watches - 1)
                    self.cut()
                    return
                cluster.changed.wait(min(remaining, 0.1))
            self.wfile.write(b"0\r\n\r\n")

    def do_POST(self):
        cluster, body, url = self.cluster, self.read_body(), urlsplit(self.path)
        if url.path == REVIEW:
            if not self.is_answered("create", "selfsubjectaccessreviews"):
                attributes = body["spec"]["resourceAttributes"]
                names = (attributes["resource"], attributes.get("subresource"))
                allowed = (attributes["verb"], "/".join(filter(None, names))) not in cluster.forbidden
                self.respond({**body, "status": {"allowed": allowed}}, 201)
            return
        plural = JOBS.fullmatch(url.path)["plural"]
        if self.is_answered("create", plural):
            return
        assert parse_qs(url.query).get("fieldValidation") == ["Strict"]
        name = body["metadata"]["name"]
        if parse_qs(url.query).get("dryRun"):
            self.dry_run(plural, body)
            return
        if name in cluster.jobs:
            self.reject(409, f'{plural} "{name}" already exists', name)
            return
        time.sleep(cluster.create_takes)
        cluster.add_job(body)
        if cluster.lost_responses:
            cluster.lost_responses -= 1
            self.cut()
        else:
            self.respond(cluster.jobs[name], 201)

    def dry_run(self, plural, body):
        """Answer the dry run of a creation, as the webhook of the operator does."""
        cluster, kind = self.cluster, plural.removesuffix("s")
        if kind not in cluster.operators:
            reason = f'Post "https://{kind}.kubeflow.svc:443/validate": connect: connection refused'
            self.reject(
                500, f'Internal error occurred: failed calling webhook "validator.{kind}.kubeflow.org": {reason}'
            )
            return
        if kind == "trainjob":
            reference = body["spec"]["runtimeRef"]
            problem = "unsupported runtime" if reference["kind"] != "TrainingRuntime" else cluster.runtime_problem
        else:
            (container,) = body["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]["containers"]
            problem = "" if container["name"] == "pytorch" else "There is no container named pytorch"
        if problem:
            self.reject(403, f'admission webhook "validator.{kind}.kubeflow.org" denied the request: {problem}')
        else:
            self.respond(body, 201)

    def do_PATCH(self):
        cluster, body, found = self.cluster, self.read_body(), JOBS.fullmatch(urlsplit(self.path).path)
        if self.is_answered("patch", found["plural"]):
            return
        with cluster.changed:
            if job := cluster.jobs.get(found["name"]):
                merge(job, body)
        self.respond(job) if job else self.not_found(found["plural"], found["name"])

    def do_DELETE(self):
        cluster, _, found = self.cluster, self.read_body(), JOBS.fullmatch(urlsplit(self.path).path)
        if self.is_answered("delete", found["plural"]):
            return
        with cluster.changed:
            jobs = cluster.jobs if found["plural"] == cluster.kind.plural else {}
            deleted = jobs.pop(found["name"], None)
            if deleted:
                cluster.remove_pods()
        done = {"kind": "Status", "status": "Success"}
        self.respond(done) if deleted else self.not_found(found["plural"], found["name"])


def merge(value, patch):
    """Apply a JSON merge patch."""
    for key, part in patch.items():
        if isinstance(part, dict):
            merge(value.setdefault(key, {}), part)
        else:
            value[key] = part


class Cluster:
    """The server and its objects."""

    def __init__(self, kind="pytorchjob"):
        self.kind = JOB_KINDS[kind]
        self.jobs, self.pods, self.events, self.logs = {}, [], [], {}
        self.quotas, self.nodes, self.workloads = [], [], []
        self.now = "2026-01-01T00:00:00Z"  # creation time of new objects
        self.version, self.compacted = (
            0,
            0,
        )  # resource version of the newest change, and of the oldest one that is kept
        self.changes = []  # pods: (version, kind, pod)
        self.calls = []  # (verb, resource) of every request
        self.created = 0

        self.operators = {"trainjob", "pytorchjob"}  # whose webhooks answer
        self.runtime_problem = ""  # why the webhook denies a TrainJob
        self.errors = []  # statuses of the next responses; "cut" closes the connection
        self.answers = {}  # (verb, resource) -> (status, message) of all responses
        self.forbidden = set()  # (verb, resource)
        self.unknown = set()  # resources without a custom resource definition
        self.token = None  # that requests must have
        self.cut_watches = 0
        self.lost_responses = 0  # of the next requests that create a job
        self.create_takes = self.log_takes = 0.0  # seconds
        self.denied_s = self.unavailable_s = 0.0  # after the start

        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._handler = type("Handler", (_Handler,), {"cluster": self})
        self._port = 0
        self.start()
        self.url = f"http://127.0.0.1:{self._port}"

    def start(self, denied_s=0.0, unavailable_s=0.0):
        """Start the server: it answers 403, then 503, then as usual."""
        self.denied_s, self.unavailable_s, self.started_at = denied_s, unavailable_s, time.monotonic()
        self.server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler)
        self.server.daemon_threads = True
        self._port = self.server.server_port
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self):
        """Stop the server and close its connections; the objects remain."""
        server, self.server = self.server, None
        server.shutdown()
        server.server_close()
        with self.changed:
            self.changed.notify_all()

    def close(self):
        if self.server is not None:
            self.stop()

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

    def api(self):
        configuration = client.Configuration()
        configuration.host, configuration.retries = self.url, False
        return client.ApiClient(configuration)

    def compact(self):
        """Forget earlier changes, like etcd."""
        with self.changed:
            self.version += 1
            self.compacted = self.version
            self.changes = []
            self.changed.notify_all()

    def add_job(self, manifest):
        """Create a job, as the API server and the operator do."""
        with self.changed:
            self.created += 1
            self.version += 1
            name = manifest["metadata"]["name"]
            stamp = {"uid": f"uid-{name}-{self.created}", "creationTimestamp": self.now, "namespace": "lab"}
            self.jobs[name] = {**manifest, "metadata": {**manifest["metadata"], **stamp}}
            if self.kind.is_suspended(manifest):
                self.set(name, "Suspended", f"{self.kind.kind} {name} is suspended.")
            self.changed.notify_all()

    def set(self, name, kind, message=""):
        """Set the newest condition of a job. A TrainJob has none while it runs."""
        kind = self.kind.succeeded if kind == "Succeeded" else kind
        if self.kind.name == "trainjob" and kind in ("Created", "Running"):
            return
        with self.changed:
            conditions = self.jobs[name].setdefault("status", {}).setdefault("conditions", [])
            for condition in conditions:
                condition["status"] = "False"
            conditions.append({"type": kind, "status": "True", "message": message})
            self.changed.notify_all()

    def pod(self, name, phase="Running", **status):
        """Create or update a pod."""
        with self.changed:
            known = [pod for pod in self.pods if pod["metadata"]["name"] == name]
            self.pods = [pod for pod in self.pods if pod not in known]
            self.version += 1
            for container in status.get("containerStatuses", []):
                container["name"] = self.kind.container
            pod = {
                "metadata": {
                    "name": name,
                    "uid": f"uid-{name}",
                    "resourceVersion": str(self.version),
                    "creationTimestamp": known[0]["metadata"]["creationTimestamp"] if known else self.now,
                    "labels": {self.kind.pod_label: name.split("-")[0]},
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

    def event(self, name, reason, message, kind="Pod", uid=None, at=None):
        """Create a warning about an object; by default about the present job or pod of this name."""
        with self.changed:
            self.version += 1
            if uid is None:
                uid = self.jobs[name]["metadata"]["uid"] if name in self.jobs else f"uid-{name}"
            key = f"{name}.{self.version:016x}"
            self.events.append(
                {
                    "metadata": {"name": key, "uid": key},
                    "involvedObject": {"name": name, "kind": kind, "uid": uid},
                    "type": "Warning",
                    "reason": reason,
                    "message": message,
                    "lastTimestamp": at or self.now,
                    "count": 1,
                }
            )

    def workload(self, name, message):
        """Create Kueue's workload of a job, which waits for a reason."""
        uid = self.jobs[name]["metadata"]["uid"]
        condition = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message}
        metadata = {"name": f"job-{name}-0a1b2", "uid": f"workload-{uid}", "labels": {"kueue.x-k8s.io/job-uid": uid}}
        self.workloads = [{"metadata": metadata, "status": {"conditions": [condition]}}]
        return metadata["name"], metadata["uid"]


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
    return {"name": "", "image": "i", "imageID": "", "ready": False, "restartCount": restarts, "state": state}
