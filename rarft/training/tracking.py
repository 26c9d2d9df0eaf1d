"""Weights & Biases: on where it is installed, offline where it has no credentials (decision D12)."""

import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = "time_r1"


def resolve_report_to(asked: list[str]) -> list[str]:
    """Where metrics go: what was asked for; with `auto`, W&B where it is installed."""
    if asked != ["auto"]:
        return asked
    return ["wandb"] if importlib.util.find_spec("wandb") else ["none"]


@contextmanager
def wandb_run(folder: Path, name: str) -> Iterator[None]:
    """A W&B run for as long as the context lasts, which the trainer logs to; environment variables win.

    Args:
        folder: where W&B keeps its files.
        name: of the run.
    """
    import wandb

    offline = "WANDB_MODE" not in os.environ and not wandb.login(prompt=False, verify=False)
    if offline:
        print(
            "training: no credentials for W&B, so it runs offline; `wandb sync` uploads its folder later, "
            "--report_to none turns it off",
            flush=True,
        )
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", PROJECT),
        dir=os.environ.get("WANDB_DIR", str(folder)),
        name=os.environ.get("WANDB_NAME", name),
        mode="offline" if offline else None,
    ):
        yield
