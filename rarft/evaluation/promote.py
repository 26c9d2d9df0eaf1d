"""Promotion: a checkpoint that passed its gates, copied with its metrics to where it is shipped from."""

import json
import shutil
import tempfile
from pathlib import Path

from rarft import objects
from rarft.errors import DataRefusedError, InputError
from rarft.evaluation.evaluate import METRICS_JSON
from rarft.manifest import entries, read_manifest, write_manifest
from rarft.mirror import send_folder
from rarft.qwen.loading import CHECKPOINT_JSON, check_checkpoint, checkpoint_path, fetched_checkpoint
from rarft.storage import Place, fetched, local_path, make_folder, member, replace_folder


def promote(checkpoint: str, evaluation: Place, destination: Place) -> str:
    """Copy a checkpoint with its `metrics.json` to `destination`; complete or not there.

    Args:
        checkpoint: a folder or URI of `rarft train`, or the name of a packaged model.
        evaluation: folder that `rarft evaluate` wrote.
        destination: folder or URI; what it holds is replaced.

    Returns:
        The destination.

    Raises:
        InputError: the checkpoint or the evaluation cannot be read, or the destination cannot be written to.
        DataRefusedError: the evaluation did not pass its gates.
    """
    check_checkpoint(checkpoint, "--checkpoint")
    with fetched(member(evaluation, METRICS_JSON), "--evaluation") as file:
        content = file.read_bytes()
    try:
        metrics = json.loads(content)
        passed, gates = metrics["passed"], metrics["gates"]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--evaluation {evaluation}: its {METRICS_JSON} is none of `rarft evaluate`") from error
    if not passed:
        reasons = "; ".join(gate["reason"] for gate in gates if not gate["passed"])
        raise DataRefusedError(f"{checkpoint} is not promoted: {reasons}")
    make_folder(destination)
    in_store = objects.is_object_uri(destination)
    beside = None if in_store else local_path(str(destination), "--to").parent
    with (
        fetched_checkpoint(checkpoint, "--checkpoint") as source,
        tempfile.TemporaryDirectory(prefix=".unfinished-", dir=beside) as temporary,
    ):
        origin, folder = Path(checkpoint_path(source)), Path(temporary) / "checkpoint"
        if not origin.is_dir():
            raise InputError(f"--checkpoint {checkpoint}: lies on a hub; give a folder or URI of `rarft train`")
        shutil.copytree(origin, folder)
        about = read_manifest(folder, CHECKPOINT_JSON) if (folder / CHECKPOINT_JSON).exists() else {}
        (folder / CHECKPOINT_JSON).unlink(missing_ok=True)
        (folder / METRICS_JSON).write_bytes(content)
        about = {name: value for name, value in about.items() if name != "files"} | {"promoted_from": checkpoint}
        write_manifest(folder, CHECKPOINT_JSON, about, entries(folder, CHECKPOINT_JSON))
        if in_store:
            send_folder(folder, str(destination), CHECKPOINT_JSON, "--to")
        else:
            replace_folder(folder, local_path(str(destination), "--to"))
    return str(destination)
