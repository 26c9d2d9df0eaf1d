"""Promotion: copy a checkpoint that passed its gates, with its metrics, to a release location."""

import contextlib
import json
import logging
import shutil
import tempfile
from pathlib import Path
from typing import Any

from rarft.checkpoint.model_card import add_evaluation
from rarft.checkpoint.source import CHECKPOINT_JSON, CONFIG_JSON, check_checkpoint, checkpoint_path, is_hub_name
from rarft.errors import CheckFailedError, InputError, input_name
from rarft.evaluation.metrics import HEADLINE, value_at
from rarft.evaluation.report import METRICS_JSON
from rarft.models.qwen2_5_vl.load import open_checkpoint
from rarft.storage.files import replace_folder
from rarft.storage.location import LocalFolder, Location, S3Folder
from rarft.storage.manifest import CorruptFolderError, hash_files, verify_folder, write_manifest
from rarft.storage.s3 import is_object_uri
from rarft.storage.sync import upload_folder

logger = logging.getLogger(__name__)


def promote(checkpoint: str, evaluation: Location, destination: Location) -> str:
    """Copy a checkpoint with its metrics.json to `destination`, atomically, and return the destination.

    Args:
        checkpoint: Folder or URI that `rarft train` wrote, or the name of a packaged model.
        evaluation: Folder that `rarft evaluate` wrote.
        destination: Folder to replace.

    Raises:
        InputError: The checkpoint or the evaluation cannot be read, the evaluation is of another checkpoint, or the
            destination cannot be written to or contains something other than a checkpoint.
        CheckFailedError: The evaluation did not pass its gates.
    """
    with input_name("--checkpoint"):
        if is_hub_name(checkpoint):
            raise InputError(f"{checkpoint}: is a Hub model; pass a folder or URI that `rarft train` wrote")
        check_checkpoint(checkpoint)
    with input_name("--evaluation"):
        content = _check_evaluation(evaluation, checkpoint)
    with input_name("--to"):
        destination.make()
        _check_destination(destination)
    local = destination.path if isinstance(destination, LocalFolder) else None
    with (
        input_name("--checkpoint"),
        open_checkpoint(checkpoint) as source,
        tempfile.TemporaryDirectory(prefix=".unfinished-", dir=local.parent if local else None) as temporary,
    ):
        origin, folder = Path(checkpoint_path(source)), Path(temporary) / "checkpoint"
        shutil.copytree(origin, folder)
        metadata = _verify(folder, checkpoint) | {"promoted_from": checkpoint}
        (folder / CHECKPOINT_JSON).unlink(missing_ok=True)
        (folder / METRICS_JSON).write_bytes(content)
        _add_to_card(folder, json.loads(content))
        write_manifest(folder, CHECKPOINT_JSON, metadata, hash_files(folder, CHECKPOINT_JSON))
        with input_name("--to"):
            if isinstance(destination, S3Folder):
                upload_folder(folder, destination, CHECKPOINT_JSON)
            else:
                replace_folder(folder, destination.path)
    return str(destination)


def _check_evaluation(evaluation: Location, checkpoint: str) -> bytes:
    """Check that an evaluation of the checkpoint passed its gates; return the content of its metrics.json."""
    content = evaluation.read(METRICS_JSON)
    try:
        metrics = json.loads(content)
        passed, gates, evaluated = metrics["passed"], metrics["gates"], metrics["evaluated"]
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{METRICS_JSON} was not written by `rarft evaluate`; check the path"
        raise InputError(f"{evaluation}: {problem}") from error
    if not passed:
        reasons = "; ".join(gate["reason"] for gate in gates if not gate["passed"])
        raise CheckFailedError(f"{checkpoint} is not promoted: {reasons}")
    if metrics.get("skipped"):
        logger.warning("%s was evaluated with %d skipped queries, counted as wrong", checkpoint, metrics["skipped"])
    if not gates:
        logger.warning("%s was evaluated without gates", checkpoint)
    if not _is_same_checkpoint(evaluated, checkpoint):
        raise InputError(
            f"{evaluation}: evaluates {evaluated}, not {checkpoint}; pass the evaluation of this checkpoint"
        )
    return content


def _add_to_card(folder: Path, metrics: dict[str, Any]) -> None:
    """Add the headline metrics that are known, with their intervals, to the model card."""
    rows = []
    for label, path in HEADLINE.items():
        with contextlib.suppress(KeyError):  # metrics.json does not have it
            if (value := value_at(metrics, path)) is not None:
                rows.append((label, path, value, value_at(metrics["intervals"], path)))
    titles = {True: "in-sample queries", False: "held-out queries", None: "queries"}
    title = titles[metrics.get("in_sample")]
    add_evaluation(folder, title, metrics.get("samples", 0), rows)


def _is_same_checkpoint(evaluated: str, checkpoint: str) -> bool:
    if evaluated == checkpoint or is_object_uri(checkpoint) or is_object_uri(evaluated):
        return evaluated == checkpoint
    return Path(checkpoint_path(evaluated)).resolve() == Path(checkpoint_path(checkpoint)).resolve()


def _check_destination(destination: Location) -> None:
    """Check that the destination is empty or contains a checkpoint."""
    if isinstance(destination, LocalFolder):
        names = {path.name for path in destination.path.iterdir()}
    else:
        names = set(destination.sizes())
    if names and CONFIG_JSON not in names:
        raise InputError(f"{destination}: contains {min(names)} and is not a checkpoint; choose another folder")


def _verify(folder: Path, checkpoint: str) -> dict[str, Any]:
    """Check a checkpoint's files against its manifest; return the manifest, empty if there is none."""
    if not (folder / CHECKPOINT_JSON).exists():
        return {}
    try:
        return verify_folder(folder, CHECKPOINT_JSON)
    except CorruptFolderError as error:
        raise InputError(f"{checkpoint}: {error}; choose another checkpoint") from error
