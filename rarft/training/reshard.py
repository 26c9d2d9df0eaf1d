"""Resuming with a different number of ranks, through DeepSpeed's universal checkpoint.

A ZeRO checkpoint is partitioned by rank. Its universal form has one file per parameter and moment, from which any
number of ranks reads its partitions, with bitwise identical values. Only the RNG state is lost: it is seeded from the
seed and the step.
"""

import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainerCallback, set_seed

from rarft.checkpoint.local import CHECKPOINT_JSON
from rarft.distributed.collectives import barrier
from rarft.storage.files import replace_folder
from rarft.storage.location import LocalFolder
from rarft.storage.manifest import read_manifest
from rarft.training.config import TrainingConfig

logger = logging.getLogger(__name__)

_LATEST, _LATEST_UNIVERSAL = "latest", "latest_universal"  # files with the name of the folder of partitions


def reshard_if_needed(args: TrainingConfig, checkpoint: Path, is_shared: bool) -> list[TrainerCallback]:
    """Make a checkpoint loadable by this number of ranks; return callbacks that the trainer then needs.

    To be called by all processes, before the trainer is made. `is_shared`: whether all machines see the checkpoint.
    """
    state = PartialState()
    saved_ranks = int(read_manifest(checkpoint, CHECKPOINT_JSON)["world_size"])
    if saved_ranks == state.num_processes:
        return []
    if state.is_main_process:
        logger.warning(
            "checkpoint saved by %d rank(s) and resumed by %d: RNG state is reset", saved_ranks, state.num_processes
        )
    if not args.deepspeed:
        return [ReseedCallback()]
    if state.is_main_process or (state.is_local_main_process and not is_shared):
        _convert(checkpoint)
    barrier()
    for config in (args.hf_deepspeed_config.config, args.deepspeed_plugin.deepspeed_config):
        config.setdefault("checkpoint", {})["load_universal"] = True
    return [ReseedCallback(), UnshareAdamStepCallback()]


def _convert(checkpoint: Path) -> None:
    """Write the universal form into a checkpoint's folder, unless it exists."""
    if (checkpoint / _LATEST_UNIVERSAL).exists():
        return
    partitions = (checkpoint / _LATEST).read_text(encoding="utf-8").strip()
    temporary_folder = checkpoint / ".universal"
    shutil.rmtree(temporary_folder, ignore_errors=True)  # of a run that was killed
    command = [
        sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state",
        "--input_folder", str(checkpoint / partitions), "--output_folder", str(temporary_folder),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{checkpoint}: cannot be converted for a different number of ranks: {done.stderr[-2000:]}")
    name = f"{partitions}_universal"
    replace_folder(temporary_folder, checkpoint / name)
    LocalFolder(checkpoint).write(_LATEST_UNIVERSAL, name.encode())


class UnshareAdamStepCallback(TrainerCallback):
    """Gives each parameter group its own step count of Adam after a universal checkpoint was loaded.

    DeepSpeed 0.19.8 assigns one tensor to all of them, and torch's fused AdamW counts in place. With two groups each
    step would count twice, and the bias corrections of the moments would be wrong.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """Copy the counts that were just loaded."""
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        for parameter_state in optimizer.state.values():
            if isinstance(parameter_state.get("step"), torch.Tensor):
                parameter_state["step"] = parameter_state["step"].clone()


class ReseedCallback(TrainerCallback):
    """Seeds each rank before its first step, because no saved RNG state fits the number of ranks."""

    _is_seeded = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Seed by step and rank, after the trainer has loaded its state."""
        if not self._is_seeded:
            set_seed(args.seed + state.global_step * args.world_size + args.process_index)
            self._is_seeded = True
