"""Trackers: Weights & Biases, offline if it has no credentials (decision D12), and the status of a TrainJob."""

import importlib.util
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from transformers.integrations.integration_utils import is_kubeflow_available

from rarft.environment import read_variable
from rarft.errors import InputError
from rarft.network import find_unreachable
from rarft.redaction import redact

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


def _host() -> str:
    import wandb

    host = read_variable("WANDB_BASE_URL") or str(wandb.Settings().base_url)
    if "@" in urlsplit(host).netloc:  # W&B prints the URL
        raise InputError("WANDB_BASE_URL: contains a user name or a password; remove them, and set WANDB_API_KEY")
    return host.rstrip("/")


def _project() -> str:
    return os.environ.get("WANDB_PROJECT") or "time_r1"


def check_wandb() -> None:
    """Check the project's name and the credentials of a W&B run, before the model is loaded.

    Raises:
        InputError: W&B rejects them, or WANDB_MODE=online requires a server that cannot be reached.
    """
    import wandb

    host = _host()
    try:
        wandb.Settings(project=_project())
    except Exception as error:  # of pydantic or of wandb
        reason = " ".join(str(error).split())
        raise InputError(f"WANDB_PROJECT {_project()}: {reason}; choose another name") from error
    mode = os.environ.get("WANDB_MODE")
    if mode == "online" and (problem := find_unreachable(host)):
        raise InputError(f"WANDB_MODE=online: {host} is unreachable ({problem}); use WANDB_MODE=offline")
    if mode is None:
        _log_in()


def _log_in() -> bool:
    """Return whether there are credentials; they are not sent anywhere yet."""
    import wandb

    if key := read_variable("WANDB_API_KEY"):
        os.environ["WANDB_API_KEY"] = key  # W&B reads the variable itself, and rejects a newline
    settings = wandb.setup().settings
    is_silent, settings.silent = settings.silent, True  # for its message, W&B would request the user's name
    try:
        return wandb.login(prompt=False, verify=False)
    except (ValueError, wandb.Error) as error:
        reason = " ".join(redact(str(error)).split())
        raise InputError(f"WANDB_API_KEY: {reason}; set a valid key, or use --report_to none") from error
    finally:
        settings.silent = is_silent


def find_offline_reason() -> str | None:
    """Return why a run cannot be online; None if it can."""
    if not _log_in():
        return "no W&B credentials"
    if problem := find_unreachable(_host()):
        return f"{_host()} is unreachable ({problem})"
    return None


@contextmanager
def wandb_run(folder: Path, name: str) -> Iterator[None]:
    """Open a W&B run, which the trainer logs to. Environment variables take precedence over the arguments.

    Without credentials, or if W&B cannot be reached, the run is offline.

    Raises:
        InputError: W&B does not start a run, for example because the key or the entity is wrong.
    """
    import wandb

    reason = find_offline_reason() if "WANDB_MODE" not in os.environ else None
    if reason:
        logger.warning(
            "%s, so its run is offline; upload it later with `wandb sync`, or turn W&B off with --report_to none",
            reason,
        )
    try:
        run = wandb.init(
            project=_project(),
            dir=os.environ.get("WANDB_DIR", str(folder)),
            name=os.environ.get("WANDB_NAME", name),
            mode="offline" if reason else None,
        )
    except wandb.Error as error:
        problem = " ".join(redact(str(error)).split())
        fix = "check WANDB_API_KEY, WANDB_ENTITY and WANDB_PROJECT, or use --report_to none"
        raise InputError(f"W&B at {_host()}: cannot start a run ({problem}); {fix}") from error
    with run:
        yield
