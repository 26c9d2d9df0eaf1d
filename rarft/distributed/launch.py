"""The launcher of this process: the processes that it started, and ending with it."""

import ctypes
import logging
import os
import signal
import sys
from pathlib import Path

from rarft.errors import EXIT_FAILED

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # prctl option of Linux
# Variables that launchers set in the processes that they start, and the names of the launchers.
_LAUNCHERS = {"TORCHELASTIC_RUN_ID": "torchrun", "CROSS_SIZE": "DeepSpeed's launcher"}


def rank_and_size() -> tuple[int, int]:
    """Return the rank of this process and the number of processes, as set by the launcher."""
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def exit_with_parent() -> None:
    """End this process when the launcher that started it ends, even by SIGKILL.

    Without this, the ranks of torchrun and of DeepSpeed's launcher outlive a killed launcher, and continue to write
    into the folder that the next start writes into. Does nothing in a process that no launcher started.
    """
    launcher = next((name for variable, name in _LAUNCHERS.items() if variable in os.environ), None)
    if launcher is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The launcher may have ended before this call. Process 1 is then the parent, unless it is the launcher itself, in
    # a container.
    if os.getppid() == 1 and b"python" not in Path("/proc/1/cmdline").read_bytes().partition(b"\0")[0]:
        logger.error("%s has ended", launcher)
        raise SystemExit(EXIT_FAILED)
