"""Training settings of a local run: a preset, and flags of `rarft train` that follow `--`."""

import logging
import re
from collections.abc import Sequence
from typing import Any

import yaml

from rarft import steps
from rarft.errors import InputError

logger = logging.getLogger(__name__)

DEFAULT_PRESET = "tiny"


def parse_flags(words: Sequence[str]) -> dict[str, Any]:
    """Return flags as a mapping of names to texts, or to lists of texts where a flag has several values.

    Raises:
        InputError: A value does not follow a flag.
    """
    values: dict[str, list[str]] = {}
    name, has_value = "", True  # a value in `--flag=value` cannot be followed by another
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            has_value = bool(equals)
            values[name] = [value] if equals else []
        elif has_value:
            raise InputError(f"{word!r} after `--`: does not follow a flag; write `-- --flag value`")
        else:
            values[name].append(word)
    settings: dict[str, Any] = {}
    for name, texts in values.items():
        if texts:
            settings[name] = texts if len(texts) > 1 else texts[0]
        else:  # a switch, such as --bf16 or --no_bf16
            settings[re.sub("^no[-_]", "", name)] = "false" if re.match("no[-_]", name) else "true"
    return settings


def training_yaml(preset: str | None, flags: Sequence[str], work_dir: str | None) -> str:
    """Return training settings as YAML, after a check of the user's.

    Args:
        preset: Name of a preset; None for the default.
        flags: Flags of `rarft train`; they override the preset.
        work_dir: Local folder to work in; None if the output folder is local.

    Raises:
        InputError: A flag is unknown or has an invalid value.
    """
    if preset is None:
        logger.warning(
            "using the preset `%s`, whose model only knows synthetic clips: it shows that other data runs through, "
            "not how well; choose another with --preset",
            DEFAULT_PRESET,
        )
    settings = {"preset": preset or DEFAULT_PRESET, **parse_flags(flags)}
    if preset or flags:
        steps.check_training_flags([f"--preset={settings['preset']}", *flags])
    return yaml.safe_dump({**({"work_dir": work_dir} if work_dir else {}), **settings})
