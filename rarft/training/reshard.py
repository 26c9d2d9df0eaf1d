"""Going on with another number of ranks, through DeepSpeed's universal checkpoint.

A ZeRO checkpoint lies in as many parts as there were ranks. Its universal form holds one file per parameter and
moment, from which any number of ranks takes its parts; the bits are the same. The random numbers are not: they go
on from the seed and the step.
"""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, set_seed

from rarft.checkpoint.local import CHECKPOINT_JSON
from rarft.storage.files import replace_folder, write_atomically
from rarft.storage.manifest import read_manifest
from rarft.training.config import TrainingConfig

_LATEST, _LATEST_UNIVERSAL = "latest", "latest_universal"  # files that name a checkpoint's folder of parts


def ranks_of(checkpoint: Path) -> int:
    """Ranks that saved a complete checkpoint."""
    return int(read_manifest(checkpoint, CHECKPOINT_JSON)["world_size"])


def convert(checkpoint: Path) -> None:
    """Write the universal form beside a checkpoint's own, where it is not there yet.

    Raises:
        RuntimeError: DeepSpeed's converter failed.
    """
    if (checkpoint / _LATEST_UNIVERSAL).exists():
        return
    parts = (checkpoint / _LATEST).read_text(encoding="utf-8").strip()
    unfinished = checkpoint / ".universal"
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed here
    command = [
        sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", "--inject_missing_state",
        "--input_folder", str(checkpoint / parts), "--output_folder", str(unfinished),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{checkpoint}: cannot be converted for another number of ranks: {done.stderr[-2000:]}")
    name = f"{parts}_universal"
    replace_folder(unfinished, checkpoint / name)
    with write_atomically(checkpoint / _LATEST_UNIVERSAL) as temporary:
        temporary.write_text(name, encoding="utf-8")


def load_converted(args: TrainingConfig) -> None:
    """Let DeepSpeed load the universal form. To be called before the trainer is made."""
    for config in (args.hf_deepspeed_config.config, args.deepspeed_plugin.deepspeed_config):
        config.setdefault("checkpoint", {})["load_universal"] = True


class UnshareAdamStepCallback(TrainerCallback):
    """Gives each group of parameters its own count of Adam's steps after a universal checkpoint was loaded.

    DeepSpeed 0.19.8 hands one tensor to all of them, and torch's fused AdamW counts in place: with two groups each
    step would count twice, and the moments' bias corrections be wrong.
    """

    def on_train_begin(self, args: Any, state: Any, control: Any, optimizer: Any = None, **_: Any) -> None:
        """The checkpoint has just been loaded."""
        while hasattr(optimizer, "optimizer"):
            optimizer = optimizer.optimizer
        for counted in optimizer.state.values():
            if isinstance(counted.get("step"), torch.Tensor):
                counted["step"] = counted["step"].clone()


class ReseedCallback(TrainerCallback):
    """Begins new random numbers before the first step, on each rank others: no saved ones fit the ranks."""

    def __init__(self) -> None:
        self._begun = False

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """After whatever the trainer has loaded and set."""
        if not self._begun:
            set_seed(args.seed + state.global_step * args.world_size + args.process_index)
            self._begun = True
