"""Trackers: Weights & Biases, offline if it has no credentials (decision D12), and the status of a TrainJob."""

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.integrations.integration_utils import is_kubeflow_available

logger = logging.getLogger(__name__)


def resolve_report_to(requested: list[str]) -> list[str]:
    """Return the trackers that metrics are logged to.

    `auto` means W&B if it is installed, and the status of the TrainJob in whose pod this is, if Kubeflow Trainer
    accepts it (`KUBEFLOW_TRAINER_SERVER_URL` is set).
    """
    if requested != ["auto"]:
        return requested
    available = {"wandb": importlib.util.find_spec("wandb") is not None, "kubeflow": is_kubeflow_available()}
    return [name for name, is_available in available.items() if is_available] or ["none"]


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
