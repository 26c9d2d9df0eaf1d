"""Whether a run's parameters can be right, before anything is started: a mistake must not cost hours of GPUs."""

import re
from collections.abc import Mapping
from typing import Any

from rarft.errors import InputError
from rarft.evaluation.gates import parse_gates
from rarft.steps import quarantine_limit
from rarft.storage.s3 import is_object_uri

_CPU = re.compile(r"\d+(\.\d+)?m?")
_MEMORY = re.compile(r"\d+([KMGTPE]i?)?")
_COUNT = re.compile(r"\d+")
_QUANTITIES = {"cpu": _CPU, "train_cpu": _CPU, "memory": _MEMORY, "train_memory": _MEMORY, "accelerators": _COUNT}
# Kubeflow takes a pod's `affinity.nodeAffinity`, and drops without a word what is not in it.
_NODE_AFFINITY = {
    "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
}  # fmt: skip


def check(values: Mapping[str, Any], job: bool = False) -> None:
    """Look at the values of the pipeline's parameters that were given.

    Args:
        values: by name.
        job: whether training is a job over several machines.

    Raises:
        InputError: one of them cannot be right; the message names it.
    """
    for name, form in _QUANTITIES.items():
        if name in values and not form.fullmatch(values[name]):
            raise InputError(f"-p {name}={values[name]}: is no quantity that Kubernetes takes")
    if job and not is_object_uri(values["output_uri"]):
        raise InputError(f"-p output_uri={values['output_uri']}: the machines share no disk; give an s3:// URI")
    if values.get("nodes", 1) < 1:
        raise InputError(f"-p nodes={values['nodes']}: must be at least 1")
    if values.get("processes", 0) < 0:
        raise InputError(f"-p processes={values['processes']}: must be at least 0")
    if foreign := sorted(set(values.get("affinity", {})) - _NODE_AFFINITY):
        raise InputError(
            f"-p affinity: has {foreign[0]}; give a node affinity, with {' or '.join(sorted(_NODE_AFFINITY))}"
        )
    if values.get("max_quarantine"):
        quarantine_limit(values["max_quarantine"], queries=0)
    parse_gates(values.get("gates", ""))
    if "training" in values:
        from rarft.training.settings_parser import parse_settings, yaml_to_arguments  # takes seconds

        parse_settings(yaml_to_arguments(values["training"], "-p training"), check_gpus=False)
