"""Kubeflow's local runners: a step as a process of this environment, or as a container of its image."""

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import local
from kfp.local import logging_utils
from kfp.local.pipeline_orchestrator import run_local_pipeline
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from pipelines.console import ConsoleFilter
from rarft.errors import STARTER_TELLS, ElsewhereError, InputError, left_cause

RUN_LOG = "run.log"
_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['pipelinechannel--(\w+)'\]\}\}")
# Variables that containers get: where the stores are, and who this is there.
_HANDED_ON = re.compile(r"(AWS|WANDB|HF|RARFT|OMP|TOKENIZERS)_\w+|EXP_NAME|OPENAI_API_KEY|CUDA_VISIBLE_DEVICES")
_SHARED_MEMORY = "1g"


def here(spec: PipelineSpec, values: Mapping[str, Any]) -> PipelineSpec:
    """A copy of the pipeline as the local runners take it.

    They take an image by its name alone, not as the run's parameter. Resources, which they do not heed, are left out,
    and so are retries: here nobody is away from the machine that a step failed on.
    """
    copy = PipelineSpec()
    copy.CopyFrom(spec)
    for task in copy.root.dag.tasks.values():
        task.ClearField("retry_policy")
    defaults = copy.root.input_definitions.parameters
    for executor in copy.deployment_spec["executors"].values():
        container = executor["container"]
        container["image"] = _PARAMETER.sub(
            lambda found: str(values.get(found[1], defaults[found[1]].default_value.string_value)), container["image"]
        )
        if "resources" in container:
            del container["resources"]
    return copy


def docker_runner(work: Path, reads: Sequence[Path], writes: Sequence[Path], network: str | None, gpus: bool) -> Any:
    """The runner of containers, in which these folders lie where they lie here, as this user's.

    Args:
        work: the run's folder.
        reads: folders that steps read.
        writes: others that they write.
        network: Docker network that they join; None for Docker's default.
        gpus: whether they get the machine's GPUs.

    Raises:
        InputError: there is no Docker engine.
    """
    import docker
    from docker.types import DeviceRequest, Mount

    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        raise InputError(f"--runner docker: no Docker engine answers ({error}); start one") from error
    folders = dict.fromkeys(reads, True) | dict.fromkeys((work, *writes), False)
    mounts = [Mount(str(path), str(path), type="bind", read_only=only_read) for path, only_read in folders.items()]
    environment = {name: value for name, value in os.environ.items() if _HANDED_ON.fullmatch(name)}
    options: dict[str, Any] = {"network": network} if network else {}
    if gpus:
        options["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return local.DockerRunner(
        user=f"{os.getuid()}:{os.getgid()}", environment=environment, mounts=mounts, shm_size=_SHARED_MEMORY, **options
    )


def execute(spec: PipelineSpec, values: Mapping[str, Any], work: Path, make_runner: Any) -> dict[str, Any]:
    """Run the pipeline in `work`; returns its outputs. What a former run there made of the same is taken again.

    Args:
        spec: the pipeline.
        values: its parameters.
        work: the run's folder.
        make_runner: makes Kubeflow's runner, once the environment that it hands on is set.

    Raises:
        InputError: a step met one, or an image cannot be had.
        ElsewhereError: a step failed; its line.
    """
    cause = work / ".failure"
    cause.unlink(missing_ok=True)
    os.environ[STARTER_TELLS] = str(cause)
    steps = len(spec.root.dag.tasks)
    try:
        local.init(
            runner=make_runner(), pipeline_root=str(work / "pipeline"), raise_on_error=True, enable_caching=True
        )
        with (
            (work / RUN_LOG).open("w", encoding="utf-8") as log,
            contextlib.redirect_stdout(ConsoleFilter(sys.stdout, log, steps)),
            logging_utils.local_logger_context(),
            warnings.catch_warnings(),
        ):
            # Of images, where a step runs in this environment and not in its image.
            warnings.filterwarnings("ignore", "You may be attemping", RuntimeWarning)
            outputs = run_local_pipeline(here(spec, values), dict(values))
    except Exception as error:
        logging.debug("the runner's own error", exc_info=True)
        raise left_cause(cause) or _told(error, work) from error
    finally:
        del os.environ[STARTER_TELLS]
    if (failed := left_cause(cause)) is not None:  # a container that was removed before its exit code was read
        raise failed
    return outputs


def _told(error: Exception, work: Path) -> Exception:
    """The error of a runner whose step left no cause."""
    if isinstance(error, InputError):
        return error
    if type(error).__module__.startswith(("docker", "requests", "urllib3")):
        return InputError(f"--runner docker: {error}")
    return ElsewhereError(f"a step ended without saying why ({error}); all output stands in {work / RUN_LOG}")
