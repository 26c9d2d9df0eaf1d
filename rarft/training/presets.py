"""Settings in YAML, and the packaged presets."""

import re
from pathlib import Path
from typing import Any

import yaml

from rarft.distributed.launch import rank_and_size
from rarft.errors import InputError

NULL = "null"  # None on the command line
_FOLDER = Path(__file__).parent / "presets"


class _YamlLoader(yaml.SafeLoader):
    """Parses 1e-5 as a number, as in YAML 1.2. YAML 1.1 requires 1.0e-5."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _scalar_text(name: str, node: yaml.Node) -> str:
    """Return the text of a scalar as written, so that 1.10 or `no` mean in YAML what they mean on the command line."""
    if not isinstance(node, yaml.ScalarNode):
        raise InputError(f"{name}: must be a list of single values")
    return NULL if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def read_yaml(text: str) -> dict[str, Any]:
    """Return settings by name from a YAML mapping: the text of a scalar, a list of texts, or a mapping."""
    loader = _YamlLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise InputError("must map settings to values, such as `beta: 0.05`")
        loader.flatten_mapping(root)
        values: dict[str, Any] = {}
        for key, node in root.value:
            name = _scalar_text("keys", key)
            if isinstance(node, yaml.SequenceNode):
                values[name] = [_scalar_text(name, item) for item in node.value]
            elif isinstance(node, yaml.MappingNode):
                values[name] = loader.construct_object(node, deep=True)
            else:
                values[name] = _scalar_text(name, node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise InputError(f"invalid YAML ({' '.join(str(error).split())})") from error
    return values


def preset_names() -> list[str]:
    """Return the names of the packaged presets."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def load_preset(name: str, check_gpus: bool = True) -> dict[str, Any]:
    """Return the settings of a packaged preset.

    Raises:
        InputError: With `check_gpus`, the run has another number of processes than the preset requires.
    """
    settings = read_yaml((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    gpus = int(settings.pop("gpus", 1))
    processes = rank_and_size()[1]
    if check_gpus and processes % gpus:
        raise InputError(
            f"--preset {name}: requires {gpus} processes or a multiple, but this run has {processes}; "
            f"start it with torchrun --nproc_per_node {gpus}, or choose another preset"
        )
    return settings
