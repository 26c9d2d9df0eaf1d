"""Parser of a run's settings: a named preset, then a YAML file (`--config`), then the command line; the later wins.

Settings are parsed one by one, and become a `TrainingConfig` only in `build_config`, because creating one may set up
DeepSpeed, and the sentence encoder must be loaded before that.

YAML is converted to command-line arguments, because a job's pods get their settings as arguments. So one parser checks
every value. `trl.TrlParser` does not check values from YAML: it makes them the defaults of its arguments.
"""

import argparse
import copy
import functools
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from transformers import HfArgumentParser

from rarft.errors import InputError, did_you_mean, input_name, suggest_flag
from rarft.storage.files import existing_file
from rarft.training.config import TrainingConfig
from rarft.training.presets import NULL, load_preset, preset_names, read_yaml

# Names that the guide uses and transformers has dropped.
_RENAMED = {"--evaluation_strategy": "--eval_strategy"}
_SWITCHES = {"on": "true", "off": "false"}  # booleans in YAML
# Inherited settings that `--help` lists with ours.
_COMMON_INHERITED = {
    "temperature", "max_completion_length", "gradient_accumulation_steps", "max_steps", "reward_weights",
    "save_strategy", "save_steps", "save_total_limit", "eval_strategy", "eval_steps", "gradient_checkpointing", "seed",
    "use_cpu",
}  # fmt: skip
# Settings that take the path of a JSON file or a mapping.
_FILES = {"accelerator_config", "fsdp_config"}


@functools.cache
def _field_types() -> dict[str, tuple[Any, ...]]:
    """Return the types of each field of `TrainingConfig`, such as (dict, NoneType) for `dict[str, Any] | None`."""
    types = {}
    for name, hint in get_type_hints(TrainingConfig).items():
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        types[name] = tuple(get_origin(option) or option for option in options)
    return types


def _make_converter(name: str, types: tuple[Any, ...], convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Extend argparse's conversion of one value with `null`, with `on` and `off`, and with JSON for a mapping."""

    @functools.wraps(convert, updated=())
    def extended(text: str) -> Any:
        if text == NULL and type(None) in types:
            return None
        if bool in types:
            return convert(_SWITCHES.get(text.lower(), text))
        if dict not in types or (name in _FILES and Path(text).is_file()):
            return convert(text)
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise argparse.ArgumentTypeError(f'must be a mapping in JSON, such as {{"key": 1}}, not {text}')
        return value

    return extended


class _HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Formatter that shows defaults except None, whose meaning the help describes."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None else super()._get_help_string(action)


class _Parser(HfArgumentParser):
    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if value is not None:  # None was written as `null`, which is not among the choices
            super()._check_value(action, value)

    def error(self, message: str) -> Any:
        message = re.sub(r"^argument (--\w+)[^:]*:", r"\1:", message)
        raise InputError(f"{message}{suggest_flag(message, self._option_string_actions)}; see `rarft train --help`")


@functools.cache
def _get_parser() -> argparse.ArgumentParser:
    """Return the parser of `rarft train`: the fields of `TrainingConfig`, `--preset` and `--config`."""
    usage = "rarft train [--quiet] [--verbose] [--preset NAME] [--config FILE] [--FLAG VALUE ...]"
    result = _Parser(
        TrainingConfig, prog="rarft train", usage=usage, allow_abbrev=False, formatter_class=_HelpFormatter,
        description="Train Qwen2.5-VL with GRPO on validated data. Flags override --config, which overrides --preset.",
        epilog="--quiet logs only warnings and errors; --verbose also logs debug messages. Flags that take a mapping "
        "expect JSON: --gradient_checkpointing_kwargs '{\"use_reentrant\": false}'.",
    )  # fmt: skip
    types = _field_types()
    for action in result._actions:
        if action.type is not None:
            action.type = _make_converter(action.dest, types[action.dest], action.type)
        # Help shows one spelling; `rarft` accepts both.
        action.option_strings = [flag for flag in action.option_strings if "-" not in flag[2:]]
        if action.option_strings[0].startswith("--no_"):
            action.help = f"Same as --{action.dest} false."
    # Help lists these fields before the hundreds that are inherited.
    own = result.add_argument_group("rarft settings")
    own.add_argument("--preset", choices=preset_names(), help="Built-in preset to start from.")
    own.add_argument("--config", help="YAML file with settings; command-line flags override it.")
    for action in list(result._optionals._group_actions):
        if action.dest in TrainingConfig.__annotations__ or action.dest in _COMMON_INHERITED:
            result._optionals._group_actions.remove(action)
            own._group_actions.append(action)
    result._optionals.title = "settings of TRL and transformers"
    result._action_groups.insert(0, result._action_groups.pop())
    return result


def _parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """Parse arguments and check each of them by itself."""
    renamed = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        renamed.append(_RENAMED.get(name, name) + equals + value)
    return _get_parser().parse_args(renamed)


def _check_shapes(settings: Mapping[str, Any]) -> None:
    """Check that each name is a setting, and that it accepts a mapping, a list or null if that is its value."""
    options, types = _get_parser()._option_string_actions, _field_types()
    for name, value in settings.items():
        flag = _RENAMED.get(f"--{name}", f"--{name}")
        if flag not in options:
            raise InputError(f"{name}: no such setting{did_you_mean(flag, options).replace('--', '')}")
        accepted = types.get(options[flag].dest, (str,))
        expected = "a mapping" if dict in accepted else "a list" if options[flag].nargs == "+" else "one value"
        if isinstance(value, dict) and dict not in accepted:
            raise InputError(f"{name}: must be {expected}, not a mapping")
        if isinstance(value, list) and options[flag].nargs != "+":
            raise InputError(f"{name}: must be {expected}, not a list")
        if value == NULL and type(None) not in accepted:
            raise InputError(f"{name}: must be {expected}, not null; leave the setting out for its default")


def to_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Convert settings to command-line arguments. A mapping becomes JSON; None is left out."""
    arguments: list[str] = []
    for name, value in settings.items():
        if isinstance(value, list):
            arguments += [f"--{name}", *map(str, value)]
        elif value is not None:
            text = json.dumps(value, default=str) if isinstance(value, dict) else value
            arguments.append(f"--{name}={text}")
    return arguments


def yaml_to_arguments(text: str, source: str) -> list[str]:
    """Convert a YAML mapping of settings to command-line arguments, and check them one by one.

    Raises:
        InputError: The YAML or a setting is invalid. The message begins with `source`, as the user typed it.
    """
    try:
        settings = read_yaml(text)
        _check_shapes(settings)
        arguments = to_arguments(settings)
        _parse_arguments(arguments)
    except InputError as error:
        raise InputError(f"{source}: {str(error).removeprefix('--')}") from error
    return arguments


def _read_config_file(name: str) -> list[str]:
    with input_name("--config"):
        path = existing_file(name)
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"--config {path}: not valid UTF-8 ({error}); convert the file") from error
    arguments = yaml_to_arguments(text, f"--config {path}")
    if _parse_arguments(arguments).config:
        raise InputError(f"--config {path}: config: a settings file cannot name another one; merge the two")
    return arguments


def parse_settings(arguments: list[str], check_gpus: bool = True) -> dict[str, Any]:
    """Return the settings of a run from the arguments of `rarft train`, checked one by one.

    Raises:
        InputError: A setting is unknown or invalid. With `check_gpus`, the number of processes is not the preset's.
    """
    options = _parse_arguments(arguments)
    if options.config:
        arguments = [*_read_config_file(options.config), *arguments]
        options = _parse_arguments(arguments)
    if options.preset:
        arguments = [*to_arguments(load_preset(options.preset, check_gpus)), *arguments]
    settings = copy.deepcopy(vars(_parse_arguments(arguments)))  # default lists belong to the parser
    del settings["preset"], settings["config"]
    # `null` for a setting that takes a list was parsed as one of its values.
    return {name: None if value == [None] else value for name, value in settings.items()}
