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
    given: dict[str, list[str]] = {}
    values: list[str] | None = None  # of the flag that a word may follow; none after `--flag=value`
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.removeprefix("--").partition("=")
            given[name] = [value] if equals else []
            values = None if equals else given[name]
        elif values is None:
            raise InputError(f"{word!r} after `--`: does not follow a flag; write `-- --flag value`")
        else:
            values.append(word)
    settings: dict[str, Any] = {}
    for name, texts in given.items():
        if texts:
            settings[name] = texts if len(texts) > 1 else texts[0]
        else:  # a switch, such as --bf16 or --no_bf16
            settings[re.sub("^no[-_]", "", name)] = "false" if re.match("no[-_]", name) else "true"
    return settings


def training_yaml(preset: str | None, flags: Sequence[str], work_dir: str | None) -> str:
    """Return a preset, flags of `rarft train` that override it, and a folder to work in as YAML, after a check."""
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
