"""Results of a local run: links or copies under fixed names, and the summary on the console."""

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.local_runner import RUN_LOG
from rarft import steps
from rarft.annotations.schema import RIQ_JSONL
from rarft.annotations.validate import REPORT_JSON
from rarft.errors import InputError
from rarft.evaluation.report import METRICS_JSON, REPORT_HTML
from rarft.reporting.training_log import TRAINING_HTML
from rarft.storage.location import LocalFolder, Location, parse_location

# Folder in the run's folder: (output of the pipeline, file that is written last).
RESULTS = {
    "validation": ("data", REPORT_JSON),
    "validation-eval": ("eval_data", RIQ_JSONL),
    "evaluation": ("results", METRICS_JSON),
}


def clear_results(work: Path, out: Location) -> None:
    """Remove the results of an earlier run, so that they are not mistaken for this run's."""
    for name, (_, marker) in RESULTS.items():
        if (work / name).exists() and not (work / name).is_symlink():
            raise InputError(f"--out {out}: contains {name}, which is not from a run; choose another folder")
        (work / name).unlink(missing_ok=True)
        if not isinstance(out, LocalFolder):
            out.child(name).delete(marker)


def publish_results(outputs: Mapping[str, Any], work: Path, out: Location) -> None:
    """Link the results of the steps to fixed names in a local folder, or copy them to the store."""
    for name, (output, marker) in RESULTS.items():
        result = Path(outputs[output].path)
        if isinstance(out, LocalFolder):
            (work / name).symlink_to(os.path.relpath(result, work))
            continue
        files = sorted((path for path in result.rglob("*") if path.is_file()), key=lambda path: path.name == marker)
        out.child(name).upload([(path.relative_to(result).as_posix(), path) for path in files])


def upload_log(work: Path, out: Location) -> None:
    """Copy the log to the store; a local folder already contains it."""
    if not isinstance(out, LocalFolder) and (work / RUN_LOG).exists():
        out.upload([(RUN_LOG, work / RUN_LOG)])


def _count_quarantined(folder: Path, name: str) -> str:
    counts = json.loads((folder / REPORT_JSON).read_text(encoding="utf-8"))["counts"]
    return f"{counts['quarantined']} of {counts['queries']} {name} queries"


def print_summary(outputs: Mapping[str, Any], out: str, location: Location, start: float) -> None:
    """Print the metrics, and where everything is in the output folder, under the name that the user wrote."""
    metrics = json.loads((Path(outputs["results"].path) / METRICS_JSON).read_text(encoding="utf-8"))
    quarantined = [_count_quarantined(Path(outputs["data"].path), "training")]
    if (Path(outputs["eval_data"].path) / REPORT_JSON).exists():  # not a copy of the training data
        quarantined.append(_count_quarantined(Path(outputs["eval_data"].path), "evaluation"))
    skipped = f"{steps.count_skipped_videos(outputs['checkpoint'])} videos in training"
    folder = str(parse_location(out))
    checkpoint = outputs["checkpoint"].replace(str(location), folder, 1)
    lines = {
        "quarantined": ", ".join(quarantined),
        "skipped": f"{skipped}, {metrics['skipped']} of {metrics['samples']} queries in evaluation",
        "validation report": f"{folder}/validation/{REPORT_HTML}",
        "evaluation report": f"{folder}/evaluation/{REPORT_HTML}",
        "training curves": f"{checkpoint.rpartition('/')[0]}/{TRAINING_HTML}",
        "trained checkpoint": checkpoint,
        **({"promoted": outputs["promoted"]} if outputs["promoted"] else {}),
        "log": f"{folder}/{RUN_LOG}",
        "duration": f"{time.monotonic() - start:.0f} s",
    }
    print(steps.format_evaluation(metrics), end="\n\n")
    for name, value in lines.items():
        print(f"{name + ':':<20}{value}")
