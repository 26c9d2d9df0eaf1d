"""Manifests without a cluster: the operators' models, the restricted Pod Security Standard, a run on this machine."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime, TrainerV1alpha1TrainJob
from kubernetes.client import ApiClient

from helpers.cluster_server import merge
from helpers.operator_models import TrainingClient
from helpers.paths import ROOT
from helpers.s3_servers import free_port
from rarft.cluster.job_config import Job
from rarft.cluster.manifests import EXAMPLE, manifests, render
from rarft.cluster.pod_spec import COMMAND
from rarft.cluster.pytorchjob import PYTORCHJOB, RENDEZVOUS_PORT, pytorchjob
from rarft.cluster.trainjob import TRAINJOB, training_runtime, trainjob
from rarft.errors import InputError
from rarft.training.settings_parser import parse_settings

FULL = replace(
    EXAMPLE, nodes=4, queue="gpus", priority_class="high", node_selector={"pool": "a100"},
    affinity={"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}},
)  # fmt: skip
JOBS = {"one node": EXAMPLE, "two nodes": replace(EXAMPLE, nodes=2), "all settings": FULL}

RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"
}  # fmt: skip


class _Response:
    def __init__(self, value):
        self.data = json.dumps(value)


def unknown_fields(value, read, kind=""):
    """Return the fields of a manifest that are lost when a client's model reads and writes it."""
    if isinstance(value, dict):
        lost = [f"{kind}.{key}" for key in value if not isinstance(read, dict) or key not in read]
        return lost + [
            at
            for key in value.keys() & (read or {}).keys()
            for at in unknown_fields(value[key], read[key], f"{kind}.{key}")
        ]
    if isinstance(value, list):
        if not isinstance(read, list) or len(read) != len(value):
            return [kind]
        return [at for one, other in zip(value, read, strict=True) for at in unknown_fields(one, other, f"{kind}[]")]
    return []


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_pytorchjob_fields_known_to_client(job):
    manifest = pytorchjob(job)
    client = TrainingClient()
    read = client.sanitize_for_serialization(client.deserialize(_Response(manifest), "KubeflowOrgV1PyTorchJob"))
    assert unknown_fields(manifest, read) == []


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_trainjob_fields_known_to_models(job):
    job = replace(job, priority_class="")
    for manifest, model in (
        (training_runtime(), TrainerV1alpha1TrainingRuntime),
        (trainjob(job), TrainerV1alpha1TrainJob),
    ):
        read = json.loads(model.from_dict(manifest).to_json())
        assert unknown_fields(manifest, read) == []


def trainjob_template(job):
    """Return the pod template that Kubeflow Trainer makes from the TrainJob and its TrainingRuntime."""
    spec = trainjob(replace(job, priority_class=""))["spec"]
    (node,) = training_runtime()["spec"]["template"]["spec"]["replicatedJobs"]
    template, trainer = node["template"]["spec"]["template"], spec["trainer"]
    (container,) = template["spec"]["containers"]
    container |= {"image": trainer["image"], "args": trainer["args"], "resources": trainer["resourcesPerNode"]}
    container["env"] += trainer["env"]
    (patch,) = spec["runtimePatches"]
    (patched,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    assert patched["name"] == node["name"]
    merge(template, patched["template"]["spec"]["template"])
    return template


def templates(job):
    """Return every pod template of the PyTorchJob and of the TrainJob."""
    replicas = pytorchjob(job)["spec"]["pytorchReplicaSpecs"].values()
    return [*(replica["template"] for replica in replicas), trainjob_template(job)]


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_trainjob_pods_equal_those_of_pytorchjob(job):
    job = replace(job, priority_class="")
    one = pytorchjob(job)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    other = trainjob_template(job)
    for template, kind in ((one, PYTORCHJOB), (other, TRAINJOB)):
        (container,) = template["spec"]["containers"]
        assert container.pop("name") == kind.container
        assert template["spec"]["topologySpreadConstraints"][0].pop("matchLabelKeys") == [kind.pod_label]
        container["env"] = [each for each in container["env"] if not each["name"].startswith("PET_")]
    assert other["spec"].pop("restartPolicy") == "OnFailure"  # of the PyTorchJob's replica
    assert one["spec"]["volumes"][0]["emptyDir"].pop("sizeLimit") == job.disk  # which a TrainJob cannot set
    assert one == other


def test_trainjob_rejects_priority_class():
    with pytest.raises(InputError, match=r"priority_class high: a TrainJob cannot set it; .*TrainingRuntime rarft"):
        trainjob(FULL)


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_pods_conform_to_restricted_standard(job):
    client = ApiClient()
    for template in templates(job):
        read = client.sanitize_for_serialization(client.deserialize(_Response(template), "V1PodTemplateSpec"))
        assert unknown_fields(template, read) == []
        spec = template["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all(set(volume) - {"name"} <= RESTRICTED_VOLUMES for volume in spec["volumes"])
        (container,) = spec["containers"]
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
        assert not security.keys() & {"privileged", "procMount", "runAsUser"}
        assert all("hostPort" not in port for port in container.get("ports", []))
        # Writable paths are volumes, and secrets are references.
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/scratch", "/tmp", "/dev/shm"} <= mounted
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} == set(volumes)
        limit = volumes["work"]["emptyDir"].get("sizeLimit", job.disk)
        assert limit == container["resources"]["requests"]["ephemeral-storage"]
        for variable in container["env"]:
            is_secret = re.search("KEY|TOKEN|SECRET", variable["name"])
            assert ("valueFrom" in variable) or not is_secret


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_pytorchjob_operator_rules(job):
    manifest = pytorchjob(job)
    replicas = manifest["spec"]["pytorchReplicaSpecs"]
    assert isinstance(manifest["spec"]["nprocPerNode"], str)
    assert replicas["Master"]["replicas"] == 1
    assert sum(replica["replicas"] for replica in replicas.values()) == job.nodes
    assert set(replicas) == ({"Master", "Worker"} if job.nodes > 1 else {"Master"})
    hosts = []
    for replica in replicas.values():
        assert replica["restartPolicy"] in {"Always", "OnFailure", "Never", "ExitCode"}
        (container,) = replica["template"]["spec"]["containers"]
        assert container["name"] == "pytorch"
        environment = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert environment["PET_RDZV_ENDPOINT"] == f"{job.name}-master-0:{RENDEZVOUS_PORT}"
        assert (
            int(environment["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"])
            < replica["template"]["spec"]["terminationGracePeriodSeconds"]
        )
        hosts.append("is_host=1" in environment["PET_RDZV_CONF"])
        resources = container["resources"]
        assert resources["requests"] == {**resources["limits"], "ephemeral-storage": job.disk}
        assert resources["limits"][job.accelerator] == str(job.gpus)
    assert hosts.count(True) == 1
    assert manifest["spec"]["runPolicy"]["cleanPodPolicy"] == "Running"
    assert ("suspend" in manifest["spec"]["runPolicy"]) == bool(job.queue)


def test_trainjob_refers_to_runtime():
    runtime, job = training_runtime(), trainjob(replace(FULL, priority_class=""))
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = node["template"]["spec"]["template"]["spec"]["containers"]
    assert (node["name"], container["name"]) == ("node", "node")
    assert node["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert (job["spec"]["trainer"]["numNodes"], job["spec"]["trainer"]["numProcPerNode"]) == (4, 8)
    assert job["spec"]["suspend"] is True


def test_example_flags_are_valid(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    flags = parse_settings([part for argument in EXAMPLE.arguments for part in argument.split("=", 1)])
    assert (flags["resume_from_checkpoint"], flags["work_dir"]) == ("auto", "/scratch")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "Rarft"}, "job name 'Rarft': must start with a lowercase letter"),
        ({"name": "x" * 54}, "at most 53 lowercase letters"),
        ({"nodes": 0}, "nodes 0: must be at least 1"),
        ({"processes": -1}, "processes -1: must be at least 0"),
    ],
)
def test_job_rejects_invalid_values(settings, message):
    with pytest.raises(InputError, match=re.escape(message)):
        Job(**{"name": "first", "image": "i", "arguments": [], **settings})


def test_k8s_files_are_current():
    rendered = manifests()
    files = {str(path.relative_to(ROOT / "k8s")) for path in (ROOT / "k8s").rglob("*.yaml")}
    assert files == set(rendered), "run `make generate`"
    for name, documents in rendered.items():
        assert (ROOT / "k8s" / name).read_text() == render(documents), "run `make generate`"


def test_kustomization_resources_exist():
    for path in (ROOT / "k8s").rglob("kustomization.yaml"):
        for resource in yaml.safe_load(path.read_text())["resources"]:
            assert (path.parent / resource).exists()


def test_base_fields_known_to_kubernetes():
    kinds = {"ServiceAccount": "V1ServiceAccount", "Role": "V1Role", "RoleBinding": "V1RoleBinding",
             "ClusterRole": "V1ClusterRole", "ClusterRoleBinding": "V1ClusterRoleBinding",
             "NetworkPolicy": "V1NetworkPolicy", "ConfigMap": "V1ConfigMap"}  # fmt: skip
    client = ApiClient()
    folders = ("base/", "doctor/")
    base = [document for name, documents in manifests().items() if name.startswith(folders) for document in documents]
    for document in base:
        if document["kind"] in kinds:
            model = client.deserialize(_Response(document), kinds[document["kind"]])
            assert unknown_fields(document, client.sanitize_for_serialization(model)) == []


def init_container():
    """Return the operator's init container from the template, with the fields that the operator fills in."""
    (template,) = manifests()["training-operator/init-container.yaml"]
    (patch,) = manifests()["training-operator/patch.yaml"]
    pod = patch["spec"]["template"]["spec"]
    assert pod["volumes"][0]["configMap"]["name"] == template["metadata"]["name"]
    # The default of the operator's --pytorch-init-container-template-file.
    ((name, text),) = template["data"].items()
    assert f"{pod['containers'][0]['volumeMounts'][0]['mountPath']}/{name}" == "/etc/config/initContainer.yaml"
    fields = {"InitContainerImage": "alpine:3.10", "MasterAddr": "rarft-master-0", "MaxTries": "3"}
    for field, value in fields.items():
        assert f"{{{{.{field}}}}}" in text
        text = text.replace(f"{{{{.{field}}}}}", value)
    (container,) = yaml.safe_load(text)
    return container


def test_init_container_conforms_to_restricted_standard():
    container, client = init_container(), ApiClient()
    read = client.sanitize_for_serialization(client.deserialize(_Response(container), "V1Container"))
    assert unknown_fields(container, read) == []
    security = container["securityContext"]
    assert (security["runAsNonRoot"], security["allowPrivilegeEscalation"]) == (True, False)
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}


@pytest.mark.parametrize(("failures", "code"), [(0, 0), (2, 0), (3, 1)])
def test_init_container_waits_for_master(tmp_path, failures, code):
    commands = {"nslookup": f'echo "$1" >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) -gt {failures} ]'}
    for name, body in {**commands, "sleep": "true"}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{body}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(init_container()["command"], env={"PATH": path}, check=False)
    assert done.returncode == code
    assert set((tmp_path / "tries").read_text().split()) == {"rarft-master-0"}


class Nodes:
    """Fake kubelet and operator: runs a container's command per node on this machine, and restarts it if it fails."""

    def __init__(self, job, folder):
        port, self.processes, self.starts, self.folder = free_port(), {}, {}, folder
        manifest = pytorchjob(job)
        self.containers = []
        for role in ("Master", "Worker"):
            template = manifest["spec"]["pytorchReplicaSpecs"][role]["template"]["spec"]["containers"][0]
            environment = {each["name"]: each["value"] for each in template["env"] if "value" in each}
            # Replace what the cluster's DNS, volumes and operator provide.
            environment["PET_RDZV_ENDPOINT"] = f"127.0.0.1:{port}"
            environment |= {"PET_NNODES": str(job.nodes), "PET_NPROC_PER_NODE": manifest["spec"]["nprocPerNode"]}
            environment |= {"PET_NODE_RANK": str(len(self.containers))}
            environment |= {
                name: str(folder / name) for name in ("TMPDIR", "XDG_CACHE_HOME", "HF_HOME", "SHARED_MEMORY")
            }
            environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
            self.containers.append(([*template["command"], *template["args"]], environment))

    def start(self, node):
        command, environment = self.containers[node]
        with (self.folder / f"node-{node}.log").open("ab") as log:
            self.processes[node] = subprocess.Popen(
                command,
                env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
        self.starts[node] = self.starts.get(node, 0) + 1

    def keep_up(self):
        """Restart containers that failed; returns whether all have succeeded."""
        for node, process in list(self.processes.items()):
            if process.poll():
                assert self.starts[node] < 6, (self.folder / f"node-{node}.log").read_text()[-3000:]
                self.start(node)
        return all(process.poll() == 0 for process in self.processes.values())


@pytest.mark.long
def test_two_nodes_resume_after_node_loss(validated, tmp_path):
    assert COMMAND[0] == "torchrun"
    arguments = [
        "--preset=tiny", "--deepspeed=zero3", f"--train_data_path={validated}", f"--out={tmp_path}", "--max_steps=8",
        "--save_strategy=steps", "--save_steps=2", "--resume_from_checkpoint=auto", "--report_to=none",
    ]  # fmt: skip
    nodes = Nodes(Job(name="two", image="i", arguments=arguments, nodes=2, gpus=0), tmp_path)
    for node in range(2):
        nodes.start(node)
    run = tmp_path / "checkpoints" / "rarft"
    deadline = time.monotonic() + 600
    while not (run / "checkpoint-2" / "checkpoint.json").exists():
        assert not nodes.keep_up()
        assert time.monotonic() < deadline
        time.sleep(0.5)
    nodes.processes[1].send_signal(signal.SIGKILL)  # lose a node, with its agent and its rank
    nodes.processes[1].wait()
    while not nodes.keep_up():
        assert time.monotonic() < deadline, (tmp_path / "node-0.log").read_text()[-3000:]
        time.sleep(0.5)
    assert nodes.starts[1] >= 2
    assert (run / "checkpoint-final" / "checkpoint.json").exists()
    assert "checkpoint-" in (tmp_path / "node-0.log").read_text()
    steps = [
        json.loads(line)["step"] for line in (run / "training.jsonl").read_text().splitlines() if '"reward"' in line
    ]
    assert steps == list(range(1, 9))
