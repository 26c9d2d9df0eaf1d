"""DeepSpeed configurations: the packaged ones, what they say, and what DeepSpeed needs before it reads one."""

import json
import os
import socket
from importlib import resources
from pathlib import Path
from typing import Any

from rarft.errors import InputError

_FOLDER = "deepspeed"


def packaged_deepspeed() -> list[str]:
    """Names of the packaged DeepSpeed configurations."""
    return sorted(
        file.name.removesuffix(".json") for file in resources.files("rarft.training").joinpath(_FOLDER).iterdir()
    )


def deepspeed_file(name_or_path: str | None) -> str | None:
    """The configuration file behind `--deepspeed`: a path, or a packaged one's name; `none` is none.

    A path that does not exist and ends in a packaged name, such as the guide's
    `scripts/configs/zero3_offload.json`, is the packaged one (decisions D10, D19).

    Raises:
        InputError: neither.
    """
    if name_or_path is None or name_or_path == "none":
        return None
    path = Path(name_or_path)
    if path.is_file():
        return str(path)
    name = path.name.removesuffix(".json")
    if name not in packaged_deepspeed():
        known = ", ".join(packaged_deepspeed())
        raise InputError(f"--deepspeed {name_or_path}: no such file; give its path, one of {known}, or none")
    return str(resources.files("rarft.training").joinpath(_FOLDER, f"{name}.json"))


def zero_settings(configuration: str | None) -> dict[str, Any]:
    """Return what a DeepSpeed configuration says about ZeRO; nothing without a configuration.

    Raises:
        InputError: The file cannot be read.
    """
    if configuration is None:
        return {}
    try:
        settings: dict[str, Any] = json.loads(Path(configuration).read_text(encoding="utf-8"))
        return dict(settings.get("zero_optimization", {}))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"--deepspeed {configuration}: cannot be read ({error})") from error


def check_saves_whole_weights(configuration: str | None) -> None:
    """Make sure that a run under ZeRO-3 can save a model that others load.

    Raises:
        InputError: its DeepSpeed configuration cannot be read, or keeps the weights in parts.
    """
    zero = zero_settings(configuration)
    if zero.get("stage") == 3 and zero.get("stage3_gather_16bit_weights_on_model_save") is not True:
        raise InputError(
            f"--deepspeed {configuration}: ZeRO-3 needs stage3_gather_16bit_weights_on_model_save: true, else no "
            "checkpoint can be loaded without DeepSpeed; add it"
        )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def prepare_deepspeed(on_cpu: bool) -> None:
    """Set up the process group's environment, and on a CPU DeepSpeed itself; before any DeepSpeed configuration."""
    if "RANK" not in os.environ:
        os.environ.update(
            RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(_free_port())
        )
    if not on_cpu:
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.ops

    # Else DeepSpeed compiles a shared-memory communication kernel first, for minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
