"""DeepSpeed configurations: finding them, reading them, and preparing the process for DeepSpeed."""

import json
import os
import socket
from pathlib import Path
from typing import Any

from rarft.errors import InputError
from rarft.storage.files import local_path

_FOLDER = Path(__file__).parent / "deepspeed"


def packaged_deepspeed() -> list[str]:
    """Return the names of the packaged DeepSpeed configurations."""
    return sorted(file.stem for file in _FOLDER.glob("*.json"))


def deepspeed_file(name_or_path: str | None) -> str | None:
    """Return the path of the configuration that `--deepspeed` names; None for `none`.

    A path that does not exist and ends in a packaged name, such as the training guide's
    `scripts/configs/zero3_offload.json`, is the packaged configuration (decisions D10, D19).

    Raises:
        InputError: There is no such file.
    """
    if name_or_path is None or name_or_path == "none":
        return None
    path = local_path(name_or_path)
    if path.is_file():
        return str(path)
    packaged = _FOLDER / f"{path.name.removesuffix('.json')}.json"
    if not packaged.is_file():
        known = ", ".join(packaged_deepspeed())
        raise InputError(f"--deepspeed {name_or_path}: no such file; pass a path, one of {known}, or none")
    return str(packaged)


def zero_settings(configuration: str | None) -> dict[str, Any]:
    """Return the ZeRO settings of a DeepSpeed configuration; empty without a configuration."""
    if configuration is None:
        return {}
    try:
        settings: dict[str, Any] = json.loads(Path(configuration).read_text(encoding="utf-8"))
        return dict(settings.get("zero_optimization", {}))
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise InputError(f"--deepspeed {configuration}: cannot be read ({error}); fix the file") from error


def check_gathers_weights(configuration: str | None) -> None:
    """Raise an `InputError` if a run under ZeRO-3 would save checkpoints that do not load without DeepSpeed."""
    zero = zero_settings(configuration)
    if zero.get("stage") == 3 and zero.get("stage3_gather_16bit_weights_on_model_save") is not True:
        raise InputError(
            f"--deepspeed {configuration}: checkpoints of ZeRO-3 would not load without DeepSpeed; add "
            "stage3_gather_16bit_weights_on_model_save: true"
        )


def prepare_deepspeed(on_cpu: bool) -> None:
    """Set the environment of the process group, and on a CPU initialize DeepSpeed.

    To be called before a `TrainingConfig` with DeepSpeed is created.
    """
    if "RANK" not in os.environ:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
    if not on_cpu:
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed
    import deepspeed.ops

    # DeepSpeed would compile a shared-memory communication kernel first, which takes minutes.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", auto_mpi_discovery=False)
