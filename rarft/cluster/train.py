"""Training by a job on the cluster, from the data of this machine to the final checkpoint in a store."""

import shutil
from collections.abc import Mapping
from typing import Any

from rarft.checkpoint.local import FINAL
from rarft.cluster.client import connect, current_namespace
from rarft.cluster.job_config import Job
from rarft.cluster.launcher import Launcher
from rarft.cluster.pytorchjob import pytorchjob
from rarft.errors import InputError
from rarft.storage.files import existing_folder, join_path, write_files
from rarft.storage.s3 import is_object_uri
from rarft.training.preflight import experiment_name
from rarft.training.settings_parser import parse_settings, to_arguments, yaml_to_arguments

# Of each input, the file that is written last.
_LAST = {"train_data_path": "riq.jsonl", "embeddings": "index.json"}
_SCRATCH = "/scratch"


def _upload_inputs(folder: str, place: str, last: str) -> None:
    """Copy a folder of files to where every machine reaches it."""
    source = existing_folder(folder, "data")
    with write_files(place, last) as temporary:
        for file in source.iterdir():
            if file.is_file():
                shutil.copyfile(file, temporary / file.name)


def train_on_cluster(
    training: str, inputs: Mapping[str, str | None], out: str, settings: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Train with the flags of one YAML text, and with `inputs`, which win over it, by a PyTorchJob.

    Args:
        training: flags of `rarft train`.
        inputs: flags too; what they name by a local path is copied under `out`.
        out: URI that all machines reach.
        settings: fields of `rarft.cluster.job_config.Job`, but for its arguments.

    Returns:
        The final checkpoint's URI, and the run's settings.

    Raises:
        InputError: settings are wrong, or the job ended for what the user can mend.
        ChildFailedError: the job failed; its cause.
    """
    if not is_object_uri(out):
        raise InputError(f"output_uri {out}: the job's machines share no disk; give an s3:// URI")
    places = {name: join_path(out, f"inputs/{settings['name']}/{name}") for name in _LAST if inputs.get(name)}
    local = {name: str(inputs[name]) for name in places if not is_object_uri(str(inputs[name]))}
    shared = {**inputs, **{name: places[name] for name in local}}
    arguments = [
        *to_arguments({"resume_from_checkpoint": "auto", "work_dir": _SCRATCH}),
        *yaml_to_arguments(training, "training"),
        *to_arguments({**shared, "out": out}),
    ]
    flags = parse_settings(arguments, check_gpus=False)
    run = f"checkpoints/{experiment_name(flags)}"
    launcher = Launcher(connect(), current_namespace(), pytorchjob(Job(arguments=arguments, **settings)))
    if not launcher.is_there():  # else it reads what was handed over before
        for name, folder in local.items():
            _upload_inputs(folder, places[name], _LAST[name])
    launcher.run()
    return join_path(out, f"{run}/{FINAL}"), flags
