"""Promotion: a checkpoint that passed its gates, copied with its metrics to where it is shipped from."""

import json
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rarft.checkpoint.locate import CHECKPOINT_JSON, check_checkpoint, checkpoint_path
from rarft.errors import CheckFailedError, InputError, input_name
from rarft.evaluation.report import METRICS_JSON
from rarft.models.qwen2_5_vl.load import open_checkpoint
from rarft.storage import s3
from rarft.storage.files import Location, join_path, local_path, make_folder, open_local, replace_folder
from rarft.storage.manifest import CorruptFolderError, hash_files, verify_folder, write_manifest
from rarft.storage.sync import upload_folder


def promote(checkpoint: str, evaluation: Location, destination: Location) -> str:
    """Copy a checkpoint with its `metrics.json` to `destination`; complete or not there.

    Args:
        checkpoint: a folder or URI of `rarft train`, or the name of a packaged model.
        evaluation: folder that `rarft evaluate` wrote.
        destination: folder or URI; what it holds is replaced.

    Returns:
        The destination.

    Raises:
        InputError: the checkpoint or the evaluation cannot be read, they do not belong together, or the destination
            cannot be written to, or holds something else than a checkpoint.
        CheckFailedError: the evaluation did not pass its gates.
    """
    check_checkpoint(checkpoint, "--checkpoint")
    with open_local(join_path(evaluation, METRICS_JSON), "--evaluation") as file:
        content = file.read_bytes()
    try:
        metrics = json.loads(content)
        passed, gates, evaluated = metrics["passed"], metrics["gates"], metrics["evaluated"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--evaluation {evaluation}: its {METRICS_JSON} is none of `rarft evaluate`") from error
    if not passed:
        reasons = "; ".join(gate["reason"] for gate in gates if not gate["passed"])
        raise CheckFailedError(f"{checkpoint} is not promoted: {reasons}")
    if not gates:
        print(f"{checkpoint}: was evaluated without gates", flush=True)
    if not _same(evaluated, checkpoint):
        raise InputError(
            f"--evaluation {evaluation}: is of {evaluated}, not of {checkpoint}; give the one of the other"
        )
    make_folder(destination, "--to")
    _check_destination(destination)
    in_store = s3.is_object_uri(destination)
    beside = None if in_store else local_path(str(destination), "--to").parent
    with (
        ExitStack() as files,
        tempfile.TemporaryDirectory(prefix=".unfinished-", dir=beside) as temporary,
    ):
        with input_name("--checkpoint"):
            source = files.enter_context(open_checkpoint(checkpoint))
        origin, folder = Path(checkpoint_path(source)), Path(temporary) / "checkpoint"
        if not origin.is_dir():
            raise InputError(f"--checkpoint {checkpoint}: lies on a hub; give a folder or URI of `rarft train`")
        shutil.copytree(origin, folder)
        about = _verified(folder, checkpoint)
        (folder / CHECKPOINT_JSON).unlink(missing_ok=True)
        (folder / METRICS_JSON).write_bytes(content)
        about = {name: value for name, value in about.items() if name != "files"} | {"promoted_from": checkpoint}
        write_manifest(folder, CHECKPOINT_JSON, about, hash_files(folder, CHECKPOINT_JSON))
        if in_store:
            upload_folder(folder, str(destination), CHECKPOINT_JSON, "--to")
        else:
            replace_folder(folder, local_path(str(destination), "--to"))
    return str(destination)


def _same(evaluated: str, checkpoint: str) -> bool:
    if evaluated == checkpoint or s3.is_object_uri(checkpoint) or s3.is_object_uri(evaluated):
        return evaluated == checkpoint
    return Path(checkpoint_path(evaluated)).resolve() == Path(checkpoint_path(checkpoint)).resolve()


def _check_destination(destination: Location) -> None:
    if s3.is_object_uri(destination):
        held = set(s3.sizes(destination, "--to"))
    else:
        held = {path.name for path in local_path(str(destination), "--to").iterdir()}
    if held and "config.json" not in held:
        raise InputError(f"--to {destination}: holds {min(held)} and is no checkpoint; give another folder")


def _verified(folder: Path, checkpoint: str) -> dict[str, Any]:
    """What the manifest says, after the files were held against it; nothing where there is none."""
    if not (folder / CHECKPOINT_JSON).exists():
        return {}
    try:
        return verify_folder(folder, CHECKPOINT_JSON)
    except CorruptFolderError as error:
        raise InputError(f"--checkpoint {checkpoint}: {error}; choose another") from error
