"""Kubeflow's local runner: run a pipeline's steps one after the other, in processes or containers."""

import contextlib
import logging
import os
import re
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kfp import local
from kfp.local import logging_utils
from kfp.local.pipeline_orchestrator import run_local_pipeline
from kfp.pipeline_spec.pipeline_spec_pb2 import PipelineSpec

from pipelines.console import ConsoleFilter
from pipelines.docker_runner import stop_containers
from rarft.errors import TERMINATION_LOG_ENV, ChildFailedError, InputError, read_failure

logger = logging.getLogger(__name__)

RUN_LOG = "run.log"
_PARAMETER = re.compile(r"\{\{\$\.inputs\.parameters\['pipelinechannel--(\w+)'\]\}\}")
_STOP_TIMEOUT_S = 60  # for the processes of a stopped run to save their work


def adapt_for_local_run(spec: PipelineSpec, values: Mapping[str, Any]) -> PipelineSpec:
    """Return a copy of a pipeline that Kubeflow's local runner accepts.

    The runner requires images by name instead of by parameter, and ignores resources. Retries are removed, because the
    user sees a failure at once.
    """
    copy = PipelineSpec()
    copy.CopyFrom(spec)
    for task in copy.root.dag.tasks.values():
        task.ClearField("retry_policy")
    defaults = copy.root.input_definitions.parameters

    def value(parameter: re.Match[str]) -> str:
        return str(values.get(parameter[1], defaults[parameter[1]].default_value.string_value))

    for executor in copy.deployment_spec["executors"].values():
        container = executor["container"]
        container["image"] = _PARAMETER.sub(value, container["image"])
        if "resources" in container:
            del container["resources"]
    return copy


def run_pipeline(
    spec: PipelineSpec, values: Mapping[str, Any], work: Path, make_runner: Callable[[], Any]
) -> dict[str, Any]:
    """Run a pipeline. Results of an earlier run in the same folder are reused where the inputs are the same.

    Args:
        spec: The pipeline.
        values: Its parameters.
        work: Folder of the run.
        make_runner: Returns Kubeflow's runner; called after the environment of the steps is set.

    Returns:
        The pipeline's outputs by name.
    """
    failure = work / ".failure"
    failure.unlink(missing_ok=True)
    # With PYTHONSAFEPATH, a step does not import modules from the current folder.
    with _environment({TERMINATION_LOG_ENV: str(failure), "PYTHONSAFEPATH": "1"}), _stopping(work):
        try:
            root = str(work / "pipeline")
            local.init(runner=make_runner(), pipeline_root=root, raise_on_error=True, enable_caching=True)
            outputs = _run_with_console(spec, values, work / RUN_LOG)
        except Exception as error:
            raise read_failure(failure) or _translate(error, work / RUN_LOG) from error
    if (failed := read_failure(failure)) is not None:  # a container that was removed before its exit code was read
        raise failed
    return outputs


def _run_with_console(spec: PipelineSpec, values: Mapping[str, Any], log: Path) -> dict[str, Any]:
    quiet = not logger.isEnabledFor(logging.INFO)
    with (
        log.open("w", encoding="utf-8") as file,
        contextlib.redirect_stdout(ConsoleFilter(sys.stderr, file, len(spec.root.dag.tasks), quiet)),
        logging_utils.local_logger_context(),
        warnings.catch_warnings(),
    ):
        # About images, which the subprocess runner does not use.
        warnings.filterwarnings("ignore", "You may be attemping", RuntimeWarning)
        outputs: dict[str, Any] = run_local_pipeline(adapt_for_local_run(spec, values), dict(values))
        return outputs


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    previous = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in previous.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextlib.contextmanager
def _stopping(work: Path) -> Iterator[None]:
    """Stop all steps on SIGTERM or Ctrl-C, and exit with code 143 or 130."""

    def stop(number: int, _frame: Any) -> None:
        for each in previous:
            signal.signal(each, signal.SIG_IGN)
        _stop_steps(work)  # before an exception, on which the local runner waits for the step to end by itself
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except SystemExit:
        logger.warning("stopped; rerun the same command to resume")
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _stop_steps(work: Path) -> None:
    """Stop the processes and containers of a run."""
    import psutil

    children = psutil.Process().children(recursive=True)
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.terminate()
    _, running = psutil.wait_procs(children, timeout=_STOP_TIMEOUT_S)
    for child in running:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()
    config = local.config.LocalExecutionConfig.instance
    if config is not None and isinstance(config.runner, local.DockerRunner):
        stop_containers(work, _STOP_TIMEOUT_S)


def _translate(error: Exception, log: Path) -> Exception:
    """Return the error to raise for the runner's error, if the step wrote no failure."""
    if isinstance(error, InputError):
        return error
    if type(error).__module__.startswith(("docker", "requests", "urllib3")):
        return InputError(f"--runner docker: {error}; build the images (docs/docker.md)")
    return ChildFailedError(f"a step exited without an error message ({error}); see {log}")
