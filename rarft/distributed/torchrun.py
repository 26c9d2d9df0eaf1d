"""A step that runs in several processes of this machine, one per GPU, started with torchrun."""

import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from rarft.errors import EXIT_PREEMPTED, TERMINATION_LOG_ENV, InputError, read_failure, report_errors

logger = logging.getLogger(__name__)

_SHUTDOWN_TIMEOUT_S = 1140  # for ranks to end after SIGTERM: a step, a save and its upload
_RESULT_ENV = "RARFT_RESULT"  # file that rank 0 writes the step's result to


def _get_step(name: str) -> Callable[..., Any]:
    """Return a function of `rarft.steps`, which imports this package."""
    return getattr(import_module("rarft.steps"), name)


def run_step(
    step: str,
    arguments: dict[str, Any],
    processes: int = 0,
    accelerators: int = 0,
    restarts: int = 0,
    name: str | None = None,
) -> Any:
    """Call a function of `rarft.steps` in this process, or in several that torchrun starts.

    Args:
        step: Name of the function.
        arguments: Its arguments, as JSON types.
        processes: Number of processes; 0 means one per GPU, and one on a machine without GPUs.
        accelerators: Number of GPUs that this machine must have, so that a step does not run on a CPU by mistake.
        restarts: Number of times that torchrun restarts all processes after one fails.
        name: Name of the step in messages; None means that of the function.

    Returns:
        The result of the function; with several processes, that of rank 0.

    Raises:
        InputError: The machine has fewer GPUs, or the step raised it in some process.
        ChildFailedError: A process failed; its one-line cause.
        SystemExit: With code 75, after SIGTERM, which is passed to all processes.
    """
    import torch

    gpus = torch.cuda.device_count()
    if accelerators > gpus:
        raise InputError(
            f"accelerators {accelerators}: torch {torch.__version__} sees {gpus}; use a GPU image, such as rarft-train"
        )
    processes = processes or gpus or 1
    if processes == 1:
        return _get_step(step)(**arguments)
    with tempfile.TemporaryDirectory() as folder:
        cause, result = Path(folder) / "cause", Path(folder) / "result.json"
        environment = {
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(_SHUTDOWN_TIMEOUT_S), **os.environ,
            TERMINATION_LOG_ENV: str(cause), _RESULT_ENV: str(result),
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # else a restart fails on the store of the previous start
        }  # fmt: skip
        code, stop_requested = _torchrun(processes, restarts, [step, name or step, json.dumps(arguments)], environment)
        if code and stop_requested:
            logger.info("stopped on SIGTERM")
            raise SystemExit(EXIT_PREEMPTED)
        if code:
            raise read_failure(cause) or RuntimeError(f"torchrun exited with code {code} without an error message")
        return json.loads(result.read_text(encoding="utf-8"))


def _torchrun(processes: int, restarts: int, arguments: list[str], environment: dict[str, str]) -> tuple[int, bool]:
    """Run this module in several processes; return torchrun's exit code, and whether SIGTERM was received.

    SIGTERM is passed on.
    """
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--rdzv_backend", "c10d"),
        *("--nproc_per_node", str(processes), "--max_restarts", str(restarts), "-m", __name__, *arguments),
    ]
    stop_requested = threading.Event()
    previous_handler = signal.signal(signal.SIGTERM, lambda *_: stop_requested.set())
    try:
        with subprocess.Popen(command, env=environment) as torchrun:
            is_terminated = False
            while (code := torchrun.poll()) is None:
                time.sleep(0.5)
                if stop_requested.is_set() and not is_terminated:
                    torchrun.terminate()
                    is_terminated = True
            return code, stop_requested.is_set()
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def _main() -> None:
    """Call the step as one of the processes; rank 0 writes its result."""
    step, name, arguments = sys.argv[1:]
    with report_errors(name):
        from rarft.distributed.launch import exit_with_parent

        exit_with_parent()
        result = _get_step(step)(**json.loads(arguments))
        if os.environ["RANK"] == "0":
            Path(os.environ[_RESULT_ENV]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    _main()
