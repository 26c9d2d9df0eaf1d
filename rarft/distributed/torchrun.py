"""A step in several processes of this machine, one a GPU, started by torchrun."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from rarft.errors import EXIT_PREEMPTED, TERMINATION_LOG_ENV, InputError, read_failure, report_errors

_SHUTDOWN_TIMEOUT_S = 1140  # seconds that ranks get to end in when told to stop: a step, a save and its upload
_RESULT = "RARFT_RESULT"  # file that the first process writes the step's result to


def check_accelerators(least: int) -> None:
    """Make sure that this machine shows as many as were asked for, before they stand idle beside a CPU at work.

    Raises:
        InputError: it shows fewer.
    """
    import torch

    if least > (shown := torch.cuda.device_count()):
        raise InputError(
            f"accelerators {least}: torch {torch.__version__} sees {shown} here; is the image one for GPUs, such as "
            "rarft-train?"
        )


def _step(name: str) -> Callable[..., Any]:
    """Return a function of `rarft.steps`, which imports this package."""
    return getattr(import_module("rarft.steps"), name)  # type: ignore[no-any-return]


def run_step(
    step: str, arguments: dict[str, Any], processes: int = 0, restarts: int = 0, name: str | None = None
) -> Any:
    """Call a function of `rarft.steps`, in this process or in several that torchrun starts.

    Args:
        step: the function's name.
        arguments: its arguments; what JSON can say.
        processes: how many; 0 for one a GPU, and one where there is none.
        restarts: how often all of several processes are started again when one dies.
        name: of the step in messages; None for the function's.

    Returns:
        What the function returns; of several processes, what it returns in the first.

    Raises:
        InputError: the step met one, in whichever process.
        ChildFailedError: a process failed; its line.
        SystemExit: with code 75, when told to stop by SIGTERM, which all processes are told, too.
    """
    if not processes:
        import torch

        processes = torch.cuda.device_count() or 1
    if processes == 1:
        return _step(step)(**arguments)
    with tempfile.TemporaryDirectory() as folder:
        cause, result = Path(folder) / "cause", Path(folder) / "result.json"
        told = {TERMINATION_LOG_ENV: str(cause), _RESULT: str(result)}
        # Else a restart fails on the store of the start before.
        environment = {
            "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(_SHUTDOWN_TIMEOUT_S), **os.environ, **told,
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
        }  # fmt: skip
        code, stop_requested = _torchrun(processes, restarts, [step, name or step, json.dumps(arguments)], environment)
        if code and stop_requested:
            print("stopped as told", flush=True)
            raise SystemExit(EXIT_PREEMPTED)
        if code:
            raise read_failure(cause) or RuntimeError(f"torchrun ended with exit code {code}, and no process said why")
        return json.loads(result.read_text(encoding="utf-8"))


def _torchrun(processes: int, restarts: int, arguments: list[str], environment: dict[str, str]) -> tuple[int, bool]:
    """Run this module in several processes; returns torchrun's exit code, and whether SIGTERM came.

    That is passed on. What the user must mend is not tried again.
    """
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--rdzv_backend", "c10d"),
        *("--nproc_per_node", str(processes), "--max_restarts", str(restarts), "-m", __name__, *arguments),
    ]
    stop_requested = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda *_: stop_requested.set())
    try:
        with subprocess.Popen(command, env=environment) as torchrun:
            passed_on = False
            while (code := _ended(torchrun)) is None:
                bad_input = isinstance(read_failure(Path(environment[TERMINATION_LOG_ENV])), InputError)
                if (bad_input or stop_requested.is_set()) and not passed_on:
                    torchrun.terminate()
                    passed_on = True
            return code, stop_requested.is_set()
    finally:
        signal.signal(signal.SIGTERM, before)


def _ended(process: subprocess.Popen[bytes]) -> int | None:
    """The process' exit code; None if it still runs after a second."""
    try:
        return process.wait(timeout=1)
    except subprocess.TimeoutExpired:
        return None


def _main() -> None:
    """One of the processes: call the step, and leave its result if this is the first."""
    step, name, arguments = sys.argv[1:]
    with report_errors(name):
        from rarft.distributed.launch import exit_with_parent

        exit_with_parent()
        result = _step(step)(**json.loads(arguments))
        if os.environ["RANK"] == "0":
            Path(os.environ[_RESULT]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    _main()
