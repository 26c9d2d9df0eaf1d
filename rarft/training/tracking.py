"""Weights & Biases: used if it is installed, offline if it has no credentials (decision D12)."""

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

logger = logging.getLogger(__name__)


def resolve_report_to(requested: list[str]) -> list[str]:
    """Return the trackers that metrics are logged to; `auto` means W&B if it is installed."""
    if requested != ["auto"]:
        return requested
    return ["wandb"] if importlib.util.find_spec("wandb") else ["none"]


@contextmanager
def wandb_run(folder: Path, name: str) -> Iterator[None]:
    """Open a W&B run, which the trainer logs to. Environment variables take precedence over the arguments."""
    import wandb

    offline = "WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False)
    if offline:
        logger.warning(
            "no W&B credentials, so its run is offline; upload it later with `wandb sync`, or turn W&B off with "
            "--report_to none"
        )
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", "time_r1"),
        dir=os.environ.get("WANDB_DIR", str(folder)),
        name=os.environ.get("WANDB_NAME", name),
        mode="offline" if offline else None,
    ):
        yield
