"""Render the manifests in `k8s/` with the code that the launcher uses: `python -m rarft.cluster.manifests`."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from rarft import __version__
from rarft.cluster.job_config import Job
from rarft.cluster.permissions import DOCTOR_CLUSTER_RULES, DOCTOR_RULES, LAUNCHER_RULES, Rule
from rarft.cluster.pod_spec import JOB_LABEL, LABEL, USER
from rarft.cluster.pytorchjob import pytorchjob
from rarft.cluster.trainjob import training_runtime, trainjob

LAUNCHER = "rarft-launcher"
_INIT_CONTAINER_NAME = "training-operator-init-container"
_RBAC = "rbac.authorization.k8s.io"
EXAMPLE = Job(
    name="rarft",
    image=f"rarft-train:{__version__}",
    arguments=(
        "--preset=8xA100-80",
        "--train_data_path=s3://rarft/validated",
        "--embeddings=s3://rarft/embeddings",
        "--out=s3://rarft/runs",
        "--work_dir=/scratch",
        "--exp_name=rarft",
        "--save_strategy=steps",
        "--save_steps=50",
        "--save_total_limit=3",
        "--resume_from_checkpoint=auto",
        "--report_to=none",
    ),
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
)


def _object(api_version: str, kind: str, name: str, **fields: Any) -> dict[str, Any]:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": name}, **fields}


def _role_binding() -> dict[str, Any]:
    """Return the binding of the role to the launcher's account and to Kubeflow Pipelines' default accounts."""
    accounts = (LAUNCHER, "pipeline-runner", "default-editor")
    return _object(
        f"{_RBAC}/v1",
        "RoleBinding",
        LAUNCHER,
        roleRef={"apiGroup": _RBAC, "kind": "Role", "name": LAUNCHER},
        subjects=[{"kind": "ServiceAccount", "name": name} for name in accounts],
    )


def _doctor(kind: str, rules: tuple[Rule, ...]) -> list[dict[str, Any]]:
    """Return the optional Role or ClusterRole of `rarft doctor`, and its binding to a user."""
    name = "rarft-doctor"
    user = {"kind": "User", "name": "you@example.com", "apiGroup": _RBAC}
    role_ref = {"apiGroup": _RBAC, "kind": kind, "name": name}
    return [
        _object(f"{_RBAC}/v1", kind, name, rules=list(rules)),
        _object(f"{_RBAC}/v1", f"{kind}Binding", name, roleRef=role_ref, subjects=[user]),
    ]


def _network_policy() -> dict[str, Any]:
    """Return the policy that only training pods reach training pods; their outgoing traffic is not limited."""
    has_job = {"key": JOB_LABEL, "operator": "Exists"}
    spec = {
        "podSelector": {"matchLabels": {LABEL: "rarft"}, "matchExpressions": [has_job]},
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": {"matchLabels": {LABEL: "rarft"}}}]}],
    }
    return _object("networking.k8s.io/v1", "NetworkPolicy", "rarft-training", spec=spec)


def _artifact_store() -> dict[str, Any]:
    """Return the configuration of Kubeflow Pipelines' artifact store: an S3 server, with the secret `rarft-store`."""
    secret = {
        "secretName": EXAMPLE.store_secret,
        "accessKeyKey": "AWS_ACCESS_KEY_ID",
        "secretKeyKey": "AWS_SECRET_ACCESS_KEY",
    }
    server = {
        "endpoint": "seaweedfs.kubeflow:8333",
        "region": "us-east-1",
        "disableSSL": True,
        "credentials": {"fromEnv": False, "secretRef": secret},
    }
    providers = yaml.safe_dump({"s3": {"default": server}}, sort_keys=False)
    data = {"defaultPipelineRoot": "s3://rarft/pipeline", "providers": providers}
    return _object("v1", "ConfigMap", "kfp-launcher", data=data)


# Template of the operator's init container. The operator fills in the fields in braces.
_INIT_CONTAINER = {
    "name": "init-pytorch",
    "image": "{{.InitContainerImage}}",
    "imagePullPolicy": "IfNotPresent",
    "command": [
        "sh", "-c",
        "for i in $(seq {{.MaxTries}}); do nslookup {{.MasterAddr}} && exit; echo waiting for master; sleep 2; done; "
        "exit 1",
    ],
    "resources": {"requests": {"cpu": "50m", "memory": "10Mi"}, "limits": {"cpu": "100m", "memory": "20Mi"}},
    "securityContext": {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    },
}  # fmt: skip
_INIT_CONTAINER_FOLDER, _INIT_CONTAINER_FILE = "/etc/config", "initContainer.yaml"  # where the operator looks


def _init_container_template() -> dict[str, Any]:
    template = yaml.safe_dump([_INIT_CONTAINER], sort_keys=False, width=1000)
    return _object("v1", "ConfigMap", _INIT_CONTAINER_NAME, data={_INIT_CONTAINER_FILE: template})


def _init_container_patch() -> dict[str, Any]:
    """Return the patch of the operator's Deployment that mounts the template."""
    mount = {"name": "init-container", "mountPath": _INIT_CONTAINER_FOLDER, "readOnly": True}
    pod = {
        "containers": [{"name": "training-operator", "volumeMounts": [mount]}],
        "volumes": [{"name": "init-container", "configMap": {"name": _INIT_CONTAINER_NAME}}],
    }
    return {"spec": {"template": {"spec": pod}}}


def _kustomization(*resources: str) -> dict[str, Any]:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(resources)}


def manifests() -> dict[str, list[dict[str, Any]]]:
    """Return the documents of each file, by its path in `k8s/`."""
    two_nodes = replace(EXAMPLE, nodes=2)
    overlay = _kustomization("../../base", "pytorchjob.yaml")
    base = {
        "serviceaccount.yaml": _object("v1", "ServiceAccount", LAUNCHER),  # training pods need no account
        "role.yaml": _object(f"{_RBAC}/v1", "Role", LAUNCHER, rules=list(LAUNCHER_RULES)),
        "rolebinding.yaml": _role_binding(),
        "networkpolicy.yaml": _network_policy(),
    }
    return {
        "pytorchjob.yaml": [pytorchjob(EXAMPLE)],
        "trainingruntime.yaml": [training_runtime()],
        "trainjob.yaml": [trainjob(two_nodes)],
        **{f"base/{name}": [document] for name, document in base.items()},
        "base/kustomization.yaml": [_kustomization(*base)],
        # Not part of the base, because it replaces the namespace's configuration.
        "kfp-launcher.yaml": [_artifact_store()],
        "doctor/role.yaml": _doctor("Role", DOCTOR_RULES),
        "doctor/clusterrole.yaml": _doctor("ClusterRole", DOCTOR_CLUSTER_RULES),
        "doctor/kustomization.yaml": [_kustomization("role.yaml", "clusterrole.yaml")],
        # For the operator's namespace.
        "training-operator/init-container.yaml": [_init_container_template()],
        "training-operator/patch.yaml": [_init_container_patch()],
        "overlays/1x8/pytorchjob.yaml": [pytorchjob(EXAMPLE)],
        "overlays/1x8/kustomization.yaml": [overlay],
        "overlays/2x8/pytorchjob.yaml": [pytorchjob(two_nodes)],
        "overlays/2x8/kustomization.yaml": [overlay],
    }


class _Dumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # write limits and requests out


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


def render(documents: list[dict[str, Any]]) -> str:
    """Return the content of a file with these documents."""
    body = yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, width=100)
    return f"# Generated by `python -m rarft.cluster.manifests`. To customize, edit a copy (docs/kubeflow.md).\n{body}"


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("k8s"))
    out = parser.parse_args().out
    for name, documents in manifests().items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text(render(documents), encoding="utf-8")


if __name__ == "__main__":
    main()
