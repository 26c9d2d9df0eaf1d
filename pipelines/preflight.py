"""Checks of a run's parameters before anything starts, so that a mistake does not cost hours of GPU time."""

import re
from collections.abc import Mapping
from typing import Any

from rarft import steps
from rarft.annotations.videos import PROBES
from rarft.errors import InputError, input_name
from rarft.storage.location import LocalFolder, parse_location

_CPU = re.compile(r"\d+(\.\d+)?m?")
_MEMORY = re.compile(r"\d+([KMGTPE]i?)?")
_COUNT = re.compile(r"\d+")
_QUANTITIES = {"cpu": _CPU, "train_cpu": _CPU, "memory": _MEMORY, "train_memory": _MEMORY, "accelerators": _COUNT}
_MINIMUM = {"nodes": 1, "processes": 0, "max_skipped_videos": 0}
# Fields of a pod's `affinity.nodeAffinity`. Kubeflow silently drops all others.
_NODE_AFFINITY = {
    "requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"
}  # fmt: skip


def check(values: Mapping[str, Any], launches_job: bool = False) -> None:
    """Check the values of parameters.

    Args:
        values: Values by name; parameters that are not given are not checked.
        launches_job: Whether training is a job on several nodes.

    Raises:
        InputError: A value is invalid; the message names the parameter.
    """
    for name, pattern in _QUANTITIES.items():
        if name in values and not pattern.fullmatch(values[name]):
            raise InputError(f"-p {name}={values[name]}: not a valid Kubernetes quantity")
    if launches_job and isinstance(parse_location(values["output_uri"]), LocalFolder):
        raise InputError(f"-p output_uri={values['output_uri']}: the nodes share no disk; give an s3:// URI")
    for name, minimum in _MINIMUM.items():
        if values.get(name, minimum) < minimum:
            raise InputError(f"-p {name}={values[name]}: must be at least {minimum}")
    if (probe := values.get("probe", PROBES[0])) not in PROBES:
        raise InputError(f"-p probe={probe}: must be {', '.join(PROBES[:-1])} or {PROBES[-1]}")
    if unknown := sorted(set(values.get("affinity", {})) - _NODE_AFFINITY):
        raise InputError(f"-p affinity: unknown field {unknown[0]}; use {' or '.join(sorted(_NODE_AFFINITY))}")
    if "format" in values:
        with input_name("-p"):
            steps.check_format(values["format"])
    if limit := values.get("max_quarantine"):
        with input_name("-p max_quarantine"):
            steps.quarantine_limit(limit, queries=0)
    with input_name("-p gates"):
        steps.parse_gates(values.get("gates", ""))
    with input_name("-p negatives"):
        steps.parse_negatives(values.get("negatives", ""))
    if "training" in values:
        steps.check_training_yaml(values["training"], "-p training")
