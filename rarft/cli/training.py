"""Commands that take the flags of training; their parser is made from the trainer's configuration."""

import os

from rarft.cli.parser import Commands


def _train(arguments: list[str]) -> None:
    from rarft import steps

    checkpoint = steps.train(arguments)
    if os.environ.get("RANK", "0") == "0":
        print(f"checkpoint: {checkpoint}")


def _cache_videos(arguments: list[str]) -> None:
    from rarft import steps

    print(steps.cache_videos(arguments))


def _inspect_prompt(arguments: list[str]) -> None:
    from rarft import steps

    print(steps.inspect_prompt(arguments))


TRAINING_COMMANDS = {"train": _train, "cache-videos": _cache_videos, "inspect-prompt": _inspect_prompt}


def list_training_commands(commands: Commands) -> None:
    """List the commands in `rarft --help`."""
    commands.list_only("train", "Train with GRPO; `rarft train --help` lists the flags.")
    commands.list_only("cache-videos", "Decode the videos of a training run into --frame_cache; takes flags of train.")
    commands.list_only("inspect-prompt", "Show the model's input for one query (--id); takes flags of train.")
