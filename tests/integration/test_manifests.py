"""Manifests without a cluster: what the operators' own models take, what the restricted profile asks, a job run."""

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
from kubeflow.training import ApiClient as TrainingClient
from kubeflow_trainer_api.models import TrainerV1alpha1TrainingRuntime, TrainerV1alpha1TrainJob
from kubernetes.client import ApiClient

from helpers.paths import ROOT
from helpers.s3_servers import free_port
from rarft.cluster.job_config import Job
from rarft.cluster.manifests import EXAMPLE, manifests, text
from rarft.cluster.pod_spec import COMMAND, RENDEZVOUS_PORT
from rarft.cluster.pytorchjob import pytorchjob
from rarft.cluster.trainjob import training_runtime, trainjob
from rarft.errors import InputError
from rarft.training.settings_parser import parse_settings

FULL = replace(
    EXAMPLE, nodes=4, queue="gpus", priority_class="high", claim="rarft-data", node_selector={"pool": "a100"},
    affinity={"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}, environment={"A": "b"},
)  # fmt: skip
JOBS = {"one node": EXAMPLE, "two nodes": replace(EXAMPLE, nodes=2), "all settings": FULL}

RESTRICTED_VOLUMES = {
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"
}  # fmt: skip


class _Answer:
    def __init__(self, value):
        self.data = json.dumps(value)


def unknown_fields(value, read, kind=""):
    """Where a manifest says something that a client's model does not know: it is gone once read and written again."""
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
def test_the_training_operators_client_knows_every_field_of_the_job(job):
    manifest = pytorchjob(job)
    client = TrainingClient()
    read = client.sanitize_for_serialization(client.deserialize(_Answer(manifest), "KubeflowOrgV1PyTorchJob"))
    assert unknown_fields(manifest, read) == []


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_the_trainers_models_know_every_field_of_runtime_and_job(job):
    for manifest, model in (
        (training_runtime(job), TrainerV1alpha1TrainingRuntime),
        (trainjob(job), TrainerV1alpha1TrainJob),
    ):
        read = json.loads(model.from_dict(manifest).to_json())
        assert unknown_fields(manifest, read) == []


def templates(job):
    """Every pod template of the job in its two forms."""
    replicas = pytorchjob(job)["spec"]["pytorchReplicaSpecs"].values()
    (node,) = training_runtime(job)["spec"]["template"]["spec"]["replicatedJobs"]
    return [*(replica["template"] for replica in replicas), node["template"]["spec"]["template"]]


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_pods_are_valid_and_keep_to_the_restricted_profile(job):
    client = ApiClient()
    for template in templates(job):
        read = client.sanitize_for_serialization(client.deserialize(_Answer(template), "V1PodTemplateSpec"))
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
        # What is written lies on a volume, and secrets come by reference.
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"/scratch", "/tmp", "/dev/shm"} <= mounted
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in spec["volumes"]}
        for variable in container["env"]:
            is_secret = re.search("KEY|TOKEN|SECRET", variable["name"])
            assert ("valueFrom" in variable) or not is_secret


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_pytorchjob_keeps_the_operators_rules(job):
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
        amounts = container["resources"]
        assert amounts["limits"] == amounts["requests"]
        assert amounts["limits"][job.accelerator] == str(job.gpus)
    assert hosts.count(True) == 1
    assert manifest["spec"]["runPolicy"]["cleanPodPolicy"] == "Running"
    assert ("suspend" in manifest["spec"]["runPolicy"]) == bool(job.queue)


def test_a_trainjob_names_its_runtime_and_the_container_that_the_trainer_looks_for():
    runtime, job = training_runtime(FULL), trainjob(FULL)
    assert job["spec"]["runtimeRef"]["name"] == runtime["metadata"]["name"]
    (node,) = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    (container,) = node["template"]["spec"]["template"]["spec"]["containers"]
    assert (node["name"], container["name"]) == ("node", "node")
    assert node["template"]["metadata"]["labels"] == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
    assert job["spec"]["trainer"] == {"numNodes": 4, "numProcPerNode": 8}


def test_the_example_trains_with_flags_that_there_are(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    flags = parse_settings([part for argument in EXAMPLE.arguments for part in argument.split("=", 1)])
    assert (flags["resume_from_checkpoint"], flags["work_dir"]) == ("auto", "/scratch")


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"name": "Rarft"}, "job name 'Rarft': must be"),
        ({"name": "x" * 54}, "must be at most 53"),
        ({"nodes": 0}, "nodes 0: must be at least 1"),
        ({"grace_s": 10}, "grace_s 10: must be at least 120"),
    ],
)
def test_a_job_that_no_cluster_takes_is_an_error(settings, told):
    with pytest.raises(InputError, match=re.escape(told)):
        Job(**{"name": "first", "image": "i", "arguments": [], **settings})


def test_the_files_in_k8s_are_what_the_code_makes():
    made = manifests()
    there = {str(path.relative_to(ROOT / "k8s")) for path in (ROOT / "k8s").rglob("*.yaml")}
    assert there == set(made), "run `make manifests`"
    for name, documents in made.items():
        assert (ROOT / "k8s" / name).read_text() == text(documents), "run `make manifests`"


def test_every_kustomization_names_files_that_are_there():
    for path in (ROOT / "k8s").rglob("kustomization.yaml"):
        for resource in yaml.safe_load(path.read_text())["resources"]:
            assert (path.parent / resource).exists()


def test_other_documents_are_ones_that_kubernetes_takes():
    kinds = {"ServiceAccount": "V1ServiceAccount", "Role": "V1Role", "RoleBinding": "V1RoleBinding",
             "NetworkPolicy": "V1NetworkPolicy", "ConfigMap": "V1ConfigMap"}  # fmt: skip
    client = ApiClient()
    base = [document for name, documents in manifests().items() if name.startswith("base/") for document in documents]
    for document in base:
        if document["kind"] in kinds:
            model = client.deserialize(_Answer(document), kinds[document["kind"]])
            assert unknown_fields(document, client.sanitize_for_serialization(model)) == []


class Nodes:
    """Stands for kubelet and operator on one machine: runs a container's command for each node, again if it fails."""

    def __init__(self, job, folder):
        port, self.processes, self.starts, self.folder = free_port(), {}, {}, folder
        manifest = pytorchjob(job)
        self.containers = []
        for role in ("Master", "Worker"):
            template = manifest["spec"]["pytorchReplicaSpecs"][role]["template"]["spec"]["containers"][0]
            environment = {each["name"]: each["value"] for each in template["env"] if "value" in each}
            # What the cluster's names, volumes and operator give, on this machine.
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
        """Start a node's container again if it failed; returns whether all have ended well."""
        for node, process in list(self.processes.items()):
            if process.poll():
                assert self.starts[node] < 6, (self.folder / f"node-{node}.log").read_text()[-3000:]
                self.start(node)
        return all(process.poll() == 0 for process in self.processes.values())


@pytest.mark.long
def test_two_nodes_train_and_go_on_after_one_was_lost(validated, tmp_path):
    assert COMMAND[0] == "torchrun"
    arguments = [
        "--preset=tiny", "--deepspeed=zero3", f"--train_data_path={validated}", f"--out={tmp_path}", "--max_steps=8",
        "--save_strategy=steps", "--save_steps=2", "--resume_from_checkpoint=auto", "--report_to=none",
    ]  # fmt: skip
    nodes = Nodes(Job(name="two", image="i", arguments=arguments, nodes=2, gpus=0), tmp_path)
    for node in range(2):
        nodes.start(node)
    run = tmp_path / "checkpoints" / "rarft"
    ends = time.monotonic() + 600
    while not (run / "checkpoint-2" / "checkpoint.json").exists():
        assert not nodes.keep_up()
        assert time.monotonic() < ends
        time.sleep(0.5)
    nodes.processes[1].send_signal(signal.SIGKILL)  # a machine is gone, with its agent and its rank
    nodes.processes[1].wait()
    while not nodes.keep_up():
        assert time.monotonic() < ends, (tmp_path / "node-0.log").read_text()[-3000:]
        time.sleep(0.5)
    assert nodes.starts[1] >= 2
    assert (run / "checkpoint-final" / "checkpoint.json").exists()
    assert "resumes" in (log := (tmp_path / "node-0.log").read_text()) or "goes on" in log or "checkpoint-" in log
    steps = [
        json.loads(line)["step"] for line in (run / "training.jsonl").read_text().splitlines() if '"reward"' in line
    ]
    assert steps == list(range(1, 9))
