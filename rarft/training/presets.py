"""Settings in YAML, and the packaged presets."""

import re
from importlib import resources
from typing import Any

import yaml

from rarft.distributed.launch import world_size
from rarft.errors import InputError

NULL = "null"  # None on the command line


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
    """Return settings by name: the text of a scalar, a list of texts, or a mapping.

    Raises:
        InputError: `text` is not a YAML mapping.
    """
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
    folder = resources.files("rarft.training").joinpath("presets")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def load_preset(name: str, check_gpus: bool = True) -> dict[str, Any]:
    """Return the settings of a packaged preset.

    Args:
        name: Name of the preset.
        check_gpus: Whether this run must have the number of processes that the preset is for.

    Raises:
        InputError: The run has another number of processes than the preset requires.
    """
    file = resources.files("rarft.training").joinpath("presets", f"{name}.yaml")
    settings = read_yaml(file.read_text(encoding="utf-8"))
    gpus = int(settings.pop("gpus", 1))
    if check_gpus and world_size() % gpus:
        raise InputError(
            f"--preset {name}: requires {gpus} processes or a multiple, but this run has {world_size()}; "
            f"start it with torchrun --nproc_per_node {gpus}, or choose another preset"
        )
    return settings
