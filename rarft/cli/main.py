"""Entry point of `rarft`: parse the command line, run a command, report an error in one line.

Nothing heavy is imported before the command is known, so that `rarft --help` answers at once.
"""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from rarft import __version__
from rarft.cli.cluster import add_cluster_commands
from rarft.cli.data import add_data_commands
from rarft.cli.evaluation import add_evaluation_commands
from rarft.cli.parser import EPILOG, LOG_LEVELS, Commands, Parser, spell_flags
from rarft.cli.pipeline import add_pipeline_commands
from rarft.cli.training import TRAINING_COMMANDS, list_training_commands
from rarft.errors import InputError, exit_interrupted, report_errors
from rarft.logs import setup_logging


def set_library_defaults() -> None:
    """Silence libraries, and let memory of the GPU grow in place; variables that are set take precedence."""
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # the older name
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    for name, value in {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DATASETS_VERBOSITY": "error",
        "TRL_EXPERIMENTAL_SILENCE": "1",
        "PYTHONWARNINGS": "ignore",
        "DS_LOG_LEVEL": "error",
    }.items():
        os.environ.setdefault(name, value)


def _drop_local_rank(arguments: list[str]) -> list[str]:
    """Drop the `--local_rank=N` that DeepSpeed's launcher puts before the command.

    The launcher sets LOCAL_RANK to the same number. `torch.distributed.launch` writes it `--local-rank=N`.
    """
    if "LOCAL_RANK" in os.environ and arguments and re.fullmatch(r"--local[-_]rank=\d+", arguments[0]):
        return arguments[1:]
    return arguments


def _check_current_folder() -> None:
    """Refuse to run in a folder that was deleted: relative paths mean nothing there, and MKL aborts the process."""
    try:
        Path.cwd()
    except FileNotFoundError as error:
        raise InputError("current folder: deleted; change to a folder that exists") from error


def _run_training_command(name: str, arguments: list[str]) -> None:
    levels = [LOG_LEVELS[argument] for argument in arguments if argument in LOG_LEVELS]
    flags = [argument for argument in arguments if argument not in LOG_LEVELS]
    setup_logging(levels[-1] if levels else None)
    resume = {"resume": "rerun with --resume_from_checkpoint auto to continue"} if name == "train" else {}
    with report_errors(name, **resume):
        _check_current_folder()
        TRAINING_COMMANDS[name](spell_flags(flags, "_"))


def build_parser() -> tuple[Parser, Commands]:
    """Return the parser of all commands, except for the flags of training, and the commands in it."""
    parser = Parser(
        prog="rarft",
        description="Refusal-aware reinforcement fine-tuning of Qwen2.5-VL for video temporal grounding.",
        epilog=f"Every command takes --quiet and --verbose. {EPILOG}",
    )
    parser.add_argument("--version", action="version", version=f"rarft {__version__}")
    commands = Commands(parser)
    add_data_commands(commands)
    list_training_commands(commands)
    add_evaluation_commands(commands)
    add_pipeline_commands(commands)
    add_cluster_commands(commands)
    return parser, commands


def _run_command(arguments: list[str]) -> None:
    parser, commands = build_parser()
    end = arguments.index("--") if "--" in arguments else len(arguments)
    options, unknown = parser.parse_known_args([*spell_flags(arguments[:end], "-"), *arguments[end:]])
    if unknown:
        hint = "; flags of `rarft train` come last, after `--`" if options.command == "run" else ""
        commands.error(options.command, f"unrecognized arguments: {' '.join(unknown)}{hint}")
    flags = vars(options)
    name, run, log_level = flags.pop("command"), flags.pop("run"), flags.pop("log_level")
    setup_logging(log_level)
    with report_errors(name):
        _check_current_folder()
        run(**flags)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line.

    Args:
        arguments: Command and flags; default: those of the process.
    """
    command_line = _drop_local_rank(list(sys.argv[1:] if arguments is None else arguments))
    set_library_defaults()
    try:
        if command_line and command_line[0] in TRAINING_COMMANDS:
            _run_training_command(command_line[0], command_line[1:])
        else:
            _run_command(command_line)
    except KeyboardInterrupt:  # before the command began
        exit_interrupted("rarft")


if __name__ == "__main__":
    main()
