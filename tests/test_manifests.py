"""What can be checked of manifests without a cluster."""

from pathlib import Path

import yaml
from kubernetes.client import ApiClient

from rarft.grpo.config import parse

REPOSITORY = Path(__file__).parents[1]


class _Response:
    def __init__(self, value):
        import json

        self.data = json.dumps(value)


def test_the_pytorchjob_is_one_that_the_operator_takes():
    job = yaml.safe_load((REPOSITORY / "k8s" / "pytorchjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert isinstance(job["spec"]["nprocPerNode"], str)
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert replicas["Master"]["replicas"] == 1
    for replica in replicas.values():
        assert replica["restartPolicy"] in {"Always", "OnFailure", "Never", "ExitCode"}
        pod = ApiClient().deserialize(_Response(replica["template"]), "V1PodTemplateSpec")
        (container,) = pod.spec.containers
        assert container.name == "pytorch"
        # The flags are ones that `rarft train` takes.
        flags = [part for argument in container.args for part in argument.split("=", 1)]
        assert parse(flags)["train_data_path"] == "/data/validated"
        assert {mount.name for mount in container.volume_mounts} == {volume.name for volume in pod.spec.volumes}
