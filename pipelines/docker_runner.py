"""Kubeflow's Docker runner: each step as a container of its image, with the run's folders mounted at their paths."""

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from kfp import local

from rarft import steps
from rarft.cluster.secrets import HUB_KEYS, STORE_KEYS, TRACKING_KEYS
from rarft.errors import TERMINATION_LOG_ENV, InputError
from rarft.logs import LOG_LEVEL_ENV

# Environment variables that containers receive. None of them names a file on this machine.
_FORWARDED_ENV = (
    *STORE_KEYS, *HUB_KEYS, *TRACKING_KEYS, "AWS_DEFAULT_REGION", "HF_ENDPOINT", "HF_HUB_OFFLINE", "WANDB_MODE",
    "EXP_NAME", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM", TERMINATION_LOG_ENV, LOG_LEVEL_ENV,
)  # fmt: skip
_RUN_LABEL = "rarft.io/run"  # label of containers: the run's folder
_SHARED_MEMORY = "1g"
# Training settings that name a folder to write to; other paths are read.
_WRITTEN_SETTINGS = ("frame_cache", "work_dir")


def docker_runner(work: Path, values: Mapping[str, Any], network: str | None, gpus: bool) -> local.DockerRunner:
    """Return a runner whose containers run as the current user.

    Args:
        work: Folder of the run.
        values: Parameters of the pipeline.
        network: Docker network to join; None for Docker's default.
        gpus: Whether containers get this machine's GPUs.
    """
    import docker
    from docker.types import DeviceRequest, Mount

    try:
        docker.from_env().ping()
    except docker.errors.DockerException as error:
        raise InputError(f"--runner docker: no Docker engine is running ({error}); start one") from error
    read, written = _mounted_folders(values)
    for path in written:
        path.mkdir(parents=True, exist_ok=True)
    folders = dict.fromkeys(read, True) | dict.fromkeys([work, *written], False)
    options: dict[str, Any] = {"network": network} if network else {}
    if gpus:
        options["device_requests"] = [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    return local.DockerRunner(
        user=f"{os.getuid()}:{os.getgid()}",
        environment={name: os.environ[name] for name in _FORWARDED_ENV if name in os.environ},
        mounts=[Mount(str(path), str(path), type="bind", read_only=read_only) for path, read_only in folders.items()],
        shm_size=_SHARED_MEMORY,
        labels={_RUN_LABEL: str(work)},
        init=True,
        **options,
    )


def stop_containers(work: Path, timeout_s: int) -> None:
    """Stop the containers of a run."""
    import docker

    for container in docker.from_env().containers.list(filters={"label": f"{_RUN_LABEL}={work}"}):
        with contextlib.suppress(docker.errors.APIError):  # it has ended since
            container.stop(timeout=timeout_s)


def _mounted_folders(values: Mapping[str, Any]) -> tuple[list[Path], list[Path]]:
    """Return the local folders that steps read and those that they write, besides the run's."""
    settings = yaml.safe_load(values["training"]) or {}
    paths = {name: Path(value) for name, value in settings.items() if isinstance(value, str) and value.startswith("/")}
    files = [values.get(name, "") for name in ("annotations", "eval_annotations", "durations")]
    files.append(steps.format_file(values.get("format", "")))
    roots = [Path(file).parent for file in files if file.startswith("/")]
    roots += [Path(values[name]) for name in ("video_root", "eval_video_root") if values.get(name, "").startswith("/")]
    compare = [steps.split_name(text)[1] for text in steps.parse_compare(values.get("compare", ""))]
    read = [*roots, *(target.parent for root in roots for target in _link_targets(root))]
    read += [Path(path) for path in (values.get("encoder", ""), *compare) if path.startswith("/")]
    read += [path for path in paths.values() if path.exists()]
    final = values.get("final_uri", "")
    written = [Path(final).parent] if final.startswith("/") else []
    return read, written + [path for name, path in paths.items() if name in _WRITTEN_SETTINGS]


def _link_targets(root: Path) -> set[Path]:
    """Return the targets of links in a folder that are outside of it."""
    targets = {path.resolve() for path in root.rglob("*") if path.is_symlink()}
    return {target for target in targets if root not in target.parents and target.exists()}
