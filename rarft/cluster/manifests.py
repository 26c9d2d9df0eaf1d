"""Render the manifests in `k8s/` with the code that the launcher uses: `python -m rarft.cluster.manifests`."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from rarft import __version__
from rarft.cluster.job_config import Job
from rarft.cluster.pod_spec import JOB_LABEL, LABEL
from rarft.cluster.pytorchjob import GROUP, PLURAL, pytorchjob
from rarft.cluster.trainjob import training_runtime, trainjob

LAUNCHER = "rarft-launcher"
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


def service_account() -> dict[str, Any]:
    """Return the launcher's account; training pods need none."""
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": LAUNCHER}}


def role() -> dict[str, Any]:
    """Return the launcher's permissions: exactly the calls that it makes (tested)."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": LAUNCHER},
        "rules": [
            {"apiGroups": [GROUP], "resources": [PLURAL], "verbs": ["create", "delete", "get", "patch"]},
            {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
            {"apiGroups": [""], "resources": ["events"], "verbs": ["list"]},
            {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
        ],
    }


def role_binding() -> dict[str, Any]:
    """Return the binding of the role to the launcher's account and to Kubeflow Pipelines' default accounts."""
    accounts = (LAUNCHER, "pipeline-runner", "default-editor")
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": LAUNCHER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": LAUNCHER},
        "subjects": [{"kind": "ServiceAccount", "name": name} for name in accounts],
    }


def network_policy() -> dict[str, Any]:
    """Return the policy that only training pods reach training pods; their outgoing traffic is not limited."""
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "rarft-training"},
        "spec": {
            "podSelector": {
                "matchLabels": {LABEL: "rarft"},
                "matchExpressions": [{"key": JOB_LABEL, "operator": "Exists"}],
            },
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {LABEL: "rarft"}}}]}],
        },
    }


def artifact_store() -> dict[str, Any]:
    """Return the configuration of Kubeflow Pipelines' artifact store: an S3 server, with the secret `rarft-store`."""
    providers = {
        "s3": {
            "default": {
                "endpoint": "seaweedfs.kubeflow:8333",
                "region": "us-east-1",
                "disableSSL": True,
                "credentials": {
                    "fromEnv": False,
                    "secretRef": {
                        "secretName": EXAMPLE.store_secret,
                        "accessKeyKey": "AWS_ACCESS_KEY_ID",
                        "secretKeyKey": "AWS_SECRET_ACCESS_KEY",
                    },
                },
            }
        }
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "kfp-launcher"},
        "data": {
            "defaultPipelineRoot": "s3://rarft/pipeline",
            "providers": yaml.safe_dump(providers, sort_keys=False),
        },
    }


def _kustomization(*resources: str) -> dict[str, Any]:
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "resources": list(resources)}


def manifests() -> dict[str, list[dict[str, Any]]]:
    """Return the documents of each file, by its path in `k8s/`."""
    two_nodes = replace(EXAMPLE, nodes=2)
    base = {
        "serviceaccount.yaml": service_account(),
        "role.yaml": role(),
        "rolebinding.yaml": role_binding(),
        "networkpolicy.yaml": network_policy(),
    }
    return {
        "pytorchjob.yaml": [pytorchjob(EXAMPLE)],
        "trainjob.yaml": [training_runtime(two_nodes), trainjob(two_nodes)],
        **{f"base/{name}": [document] for name, document in base.items()},
        "base/kustomization.yaml": [_kustomization(*base)],
        # Not part of the base, because it replaces the namespace's configuration.
        "kfp-launcher.yaml": [artifact_store()],
        "overlays/1x8/pytorchjob.yaml": [pytorchjob(EXAMPLE)],
        "overlays/1x8/kustomization.yaml": [_kustomization("../../base", "pytorchjob.yaml")],
        "overlays/2x8/pytorchjob.yaml": [pytorchjob(two_nodes)],
        "overlays/2x8/kustomization.yaml": [_kustomization("../../base", "pytorchjob.yaml")],
    }


class _NoAliasDumper(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True  # write limits and requests out


def render(documents: list[dict[str, Any]]) -> str:
    """Return the content of a file."""
    body = yaml.dump_all(documents, Dumper=_NoAliasDumper, sort_keys=False, width=100)
    return f"# Generated by `python -m rarft.cluster.manifests`. To customize, edit a copy (docs/kubeflow.md).\n{body}"


def main() -> None:
    """Write all files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("k8s"))
    out = parser.parse_args().out
    for name, documents in manifests().items():
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(render(documents), encoding="utf-8")
        print(path)


if __name__ == "__main__":
    main()
