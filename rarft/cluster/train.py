"""Training as a job on a cluster: upload the inputs, run the job, return the final checkpoint."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rarft.checkpoint.local import FINAL
from rarft.cluster.client import connect, current_namespace
from rarft.cluster.job_config import Job
from rarft.cluster.kinds import JOB_KINDS
from rarft.cluster.launcher import Launcher
from rarft.errors import InputError
from rarft.storage.files import existing_folder
from rarft.storage.location import LocalFolder, S3Folder, parse_location
from rarft.training.setting_values import experiment_name
from rarft.training.settings_parser import parse_settings, to_arguments, yaml_to_arguments

# Flags that name a folder, and the file that is written last into it.
_INPUT_MARKERS = {"train_data_path": "riq.jsonl", "embeddings": "index.json"}
_WORK_DIR = "/scratch"


def _upload_inputs(folder: Path, destination: S3Folder, marker: str) -> None:
    """Copy the files of a folder to the store, the marker file last."""
    files = [(path.name, path) for path in existing_folder(str(folder)).iterdir() if path.is_file()]
    destination.delete(marker)
    destination.upload(sorted(files, key=lambda file: file[0] == marker))


def train_on_cluster(
    training: str, inputs: Mapping[str, str | None], out: str, kind: str, job: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    """Train with a job of a kind.

    Args:
        training: Flags of `rarft train` as YAML.
        inputs: Flags that override `training`; local folders among them are uploaded to `out`.
        out: URI that all nodes can reach.
        kind: Name of the job's kind, such as `trainjob`.
        job: Fields of `rarft.cluster.job_config.Job`, except for its arguments.

    Returns:
        The final checkpoint's URI, and the training settings.

    Raises:
        InputError: The settings are invalid, or the job failed for a reason that the user can fix.
        ChildFailedError: The job failed for another reason.
    """
    store = parse_location(out)
    if not isinstance(store, S3Folder):
        raise InputError(f"output_uri {out}: the nodes share no disk; give an s3:// URI")
    shared, uploads = dict(inputs), []
    for name, marker in _INPUT_MARKERS.items():
        source = parse_location(folder) if (folder := inputs.get(name)) else None
        if isinstance(source, LocalFolder):
            destination = store.child(f"inputs/{job['name']}/{name}")
            shared[name] = str(destination)
            uploads.append((source.path, destination, marker))
    arguments = [
        *to_arguments({"resume_from_checkpoint": "auto", "work_dir": _WORK_DIR}),
        *yaml_to_arguments(training, "training"),
        *to_arguments({**shared, "out": out}),
    ]
    settings = parse_settings(arguments, check_gpus=False)
    launcher = Launcher(connect(), current_namespace(), JOB_KINDS[kind], Job(arguments=arguments, **job))
    if not launcher.exists():  # a running job still reads the earlier upload
        for upload in uploads:
            _upload_inputs(*upload)
    launcher.run()
    return str(store.child(f"checkpoints/{experiment_name(settings)}/{FINAL}")), settings
