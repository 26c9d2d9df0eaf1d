"""The launcher that started this process: how many processes it started, and ending with it."""

import ctypes
import os
import signal
import sys
from pathlib import Path

from rarft.errors import EXIT_FAILED

_PR_SET_PDEATHSIG = 1  # of Linux' prctl
# Variables that a launcher sets in the processes that it starts itself, and the launcher's name.
_LAUNCHERS = {"TORCHELASTIC_RUN_ID": "torchrun", "CROSS_SIZE": "DeepSpeed's launcher"}


def world_size() -> int:
    """Processes of this run, as the launcher set them; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def exit_with_parent() -> None:
    """End this process when the launcher that started it ends, even by SIGKILL.

    Without this, the ranks of torchrun and of DeepSpeed's launcher outlive a killed launcher, and continue to write
    into the folder that the next start writes into. Does nothing where no launcher started this process.
    """
    launcher = next((name for variable, name in _LAUNCHERS.items() if variable in os.environ), None)
    if launcher is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended before; process 1 has then taken its place, unless it is process 1 itself, in a container.
    if os.getppid() == 1 and b"python" not in Path("/proc/1/cmdline").read_bytes().partition(b"\0")[0]:
        print(f"rarft train: {launcher} has ended", file=sys.stderr, flush=True)
        raise SystemExit(EXIT_FAILED)
