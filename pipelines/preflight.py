"""Checks of a run's parameters before anything starts, so that a mistake does not cost hours of GPU time."""

from collections.abc import Mapping
from typing import Any

from pipelines.kubernetes_values import check_kubernetes_values
from rarft import steps
from rarft.annotations.crop_times import CROP_TIMES
from rarft.annotations.videos import PROBES
from rarft.errors import InputError, input_name
from rarft.storage.location import LocalFolder, parse_location

_CHOICES = {"probe": PROBES, "crop_times": CROP_TIMES}
_MINIMUM = {"nodes": 1, "processes": 0, "max_skipped_videos": 0}


def check(values: Mapping[str, Any], job_kind: str = "") -> None:
    """Check the values of parameters.

    Args:
        values: Values by name; parameters that are not given are not checked.
        job_kind: Kind of the job that trains on several nodes; empty if training runs in the step's pod.

    Raises:
        InputError: A value is invalid; the message names the parameter.
    """
    check_kubernetes_values(values)
    if job_kind and isinstance(parse_location(values["output_uri"]), LocalFolder):
        raise InputError(f"-p output_uri={values['output_uri']}: the nodes share no disk; give an s3:// URI")
    if job_kind == "trainjob" and values.get("priority_class"):
        raise InputError(
            f"-p priority_class={values['priority_class']}: a TrainJob cannot set it; set priorityClassName in the "
            "TrainingRuntime"
        )
    for name, minimum in _MINIMUM.items():
        if values.get(name, minimum) < minimum:
            raise InputError(f"-p {name}={values[name]}: must be at least {minimum}")
    gpus = int(values.get("accelerators", 0))
    if gpus and values.get("processes", 0) > gpus:
        raise InputError(f"-p processes={values['processes']}: more than accelerators={gpus}; use 0 for one per GPU")
    for name, choices in _CHOICES.items():
        if (value := values.get(name, choices[0])) not in choices:
            raise InputError(f"-p {name}={value}: must be {', '.join(choices[:-1])} or {choices[-1]}")
    if limit := values.get("max_quarantine"):
        with input_name("-p max_quarantine"):
            steps.quarantine_limit(limit, queries=0)
    with input_name("-p gates"):
        steps.parse_gates(values.get("gates", ""))
    with input_name("-p negatives"):
        steps.parse_negatives(values.get("negatives", ""))
    if "training" in values:
        steps.check_training_yaml(values["training"], "-p training")
