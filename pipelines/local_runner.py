"""Kubeflow's local runners: a step as a process of this environment, or as a container of its image."""

import contextlib
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kfp import local
from kfp.local import logging_utils
from kfp.local.pipeline_orchestrator import run_local_pipeline
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from pipelines.console import ConsoleFilter
from rarft.cluster.secrets import HUB_KEYS, STORE_KEYS, TRACKING_KEYS
from rarft.errors import TERMINATION_LOG_ENV, ChildFailedError, InputError, read_failure

RUN_LOG = "run.log"
_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['pipelinechannel--(\w+)'\]\}\}")
# Variables that containers get: what is said in them is true there, too. None that names a file of this machine.
_FORWARDED_ENV = (
    *STORE_KEYS, *HUB_KEYS, *TRACKING_KEYS, "AWS_DEFAULT_REGION", "HF_ENDPOINT", "HF_HUB_OFFLINE", "WANDB_MODE",
    "EXP_NAME", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", TERMINATION_LOG_ENV,
)  # fmt: skip
_RUN_LABEL = "rarft.io/run"  # of containers: the run's folder
_SHARED_MEMORY = "1g"
_STOP_TIMEOUT_S = 60  # seconds that the processes of a run that is stopped get, to save what they are at


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
    for path in writes:
        path.mkdir(parents=True, exist_ok=True)
    folders = dict.fromkeys(reads, True) | dict.fromkeys((work, *writes), False)
    mounts = [Mount(str(path), str(path), type="bind", read_only=only_read) for path, only_read in folders.items()]
    environment = {name: os.environ[name] for name in _FORWARDED_ENV if name in os.environ}
    options: dict[str, Any] = {"network": network} if network else {}
    if gpus:
        options["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return local.DockerRunner(
        user=f"{os.getuid()}:{os.getgid()}",
        environment=environment,
        mounts=mounts,
        shm_size=_SHARED_MEMORY,
        labels={_RUN_LABEL: str(work)},
        init=True,
        **options,
    )


def _stop_steps(work: Path) -> None:
    """End what a run that is stopped has started: its processes, and its containers."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    _, left = psutil.wait_procs(children, timeout=_STOP_TIMEOUT_S)
    for child in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    if not isinstance(local.config.LocalExecutionConfig.instance.runner, local.DockerRunner):
        return
    import docker

    for container in docker.from_env().containers.list(filters={"label": f"{_RUN_LABEL}={work}"}):
        with contextlib.suppress(docker.errors.APIError):  # it has ended since
            container.stop(timeout=_STOP_TIMEOUT_S)


@contextlib.contextmanager
def _stopping(work: Path) -> Iterator[None]:
    """Let SIGTERM, as Ctrl-C, end the run with all that it has started.

    Raises:
        SystemExit: with code 143 after SIGTERM, 130 after Ctrl-C.
    """

    def told(*_: Any) -> None:
        raise SystemExit(128 + signal.SIGTERM)

    before = signal.signal(signal.SIGTERM, told)
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _stop_steps(work)
        print("rarft run: stopped; the same command goes on from what was done", file=sys.stderr, flush=True)
        raise SystemExit(stop.code if isinstance(stop, SystemExit) else 128 + signal.SIGINT) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def execute(spec: PipelineSpec, values: Mapping[str, Any], work: Path, make_runner: Any) -> dict[str, Any]:
    """Run the pipeline in `work`; returns its outputs. What a former run there made of the same is taken again.

    Args:
        spec: the pipeline.
        values: its parameters.
        work: the run's folder.
        make_runner: makes Kubeflow's runner, once the environment that it hands on is set.

    Raises:
        InputError: a step met one, or an image cannot be had.
        ChildFailedError: a step failed; its line.
    """
    cause = work / ".failure"
    cause.unlink(missing_ok=True)
    # A file of the folder that this is run in must not be taken for a module of ours.
    ours = {TERMINATION_LOG_ENV: str(cause), "PYTHONSAFEPATH": "1"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ.update(ours)
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
            _stopping(work),
        ):
            # Of images, where a step runs in this environment and not in its image.
            warnings.filterwarnings("ignore", "You may be attemping", RuntimeWarning)
            outputs = run_local_pipeline(here(spec, values), dict(values))
    except Exception as error:
        logging.debug("the runner's own error", exc_info=True)
        raise read_failure(cause) or _wrap_s3_errors(error, work) from error
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    if (failed := read_failure(cause)) is not None:  # a container that was removed before its exit code was read
        raise failed
    return outputs


def _wrap_s3_errors(error: Exception, work: Path) -> Exception:
    """The error of a runner whose step left no cause."""
    if isinstance(error, InputError):
        return error
    if type(error).__module__.startswith(("docker", "requests", "urllib3")):
        return InputError(f"--runner docker: {error}; are the images built, or can they be pulled? docs/docker.md")
    return ChildFailedError(f"a step ended without saying why ({error}); all output stands in {work / RUN_LOG}")
