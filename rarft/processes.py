"""A step in several processes of this machine, one a GPU, started by torchrun."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rarft.errors import STARTER_TELLS, InputError, left_cause, reported

_RESULT = "RARFT_RESULT"  # file that the first process writes the step's result to


def run_step(step: str, arguments: dict[str, Any], processes: int = 0, restarts: int = 0) -> Any:
    """Call a function of `rarft.steps`, in this process or in several that torchrun starts.

    Args:
        step: the function's name.
        arguments: its arguments; what JSON can say.
        processes: how many; 0 for one a GPU, and one where there is none.
        restarts: how often all of them are started again when one dies.

    Returns:
        What the function returns; of several processes, what it returns in the first.

    Raises:
        InputError: the step met one, in whichever process.
        ElsewhereError: a process failed; its line.
    """
    if not processes:
        import torch

        processes = torch.cuda.device_count() or 1
    if processes == 1:
        from rarft import steps

        return getattr(steps, step)(**arguments)
    with tempfile.TemporaryDirectory() as folder:
        cause, result = Path(folder) / "cause", Path(folder) / "result.json"
        told = {STARTER_TELLS: str(cause), _RESULT: str(result)}
        # Else a restart fails on the store of the start before.
        environment = {**os.environ, **told, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
        code = _torchrun(processes, restarts, [step, json.dumps(arguments)], environment, cause)
        if code:
            raise left_cause(cause) or RuntimeError(f"torchrun ended with exit code {code}, and no process said why")
        return json.loads(result.read_text(encoding="utf-8"))


def _torchrun(processes: int, restarts: int, arguments: list[str], environment: dict[str, str], cause: Path) -> int:
    """Run this module in several processes; returns torchrun's exit code.

    Passes SIGTERM on to them. What the user must mend is not tried again.
    """
    command = [
        *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--rdzv_backend", "c10d"),
        *("--nproc_per_node", str(processes), "--max_restarts", str(restarts), "-m", __name__, *arguments),
    ]
    with subprocess.Popen(command, env=environment) as torchrun:
        before = signal.signal(signal.SIGTERM, lambda *_: torchrun.terminate())
        try:
            while (code := _ended(torchrun)) is None:
                if isinstance(left_cause(cause), InputError):
                    torchrun.terminate()
                    return torchrun.wait()
            return code
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
    step, arguments = sys.argv[1:]
    with reported(step):
        from rarft.grpo.launch import die_with_launcher

        die_with_launcher()
        from rarft import steps

        result = getattr(steps, step)(**json.loads(arguments))
        if os.environ["RANK"] == "0":
            Path(os.environ[_RESULT]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    _main()
