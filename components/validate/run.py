"""What the validation component does inside its container."""

import shutil
from pathlib import Path
from typing import Any

from components.figures import keep
from rarft import steps
from rarft.annotations.parsing import base_name
from rarft.annotations.schema import RIQ_JSONL, iterate_samples
from rarft.annotations.validate import REPORT_HTML, summary
from rarft.errors import InputError, report_errors


def _validate(annotations: str, out: str, video_root: str, max_quarantine: str) -> dict[str, Any]:
    """Validate one file.

    Raises:
        InputError: not a single query of it can be used.
        CheckFailedError: more of it was quarantined than is accepted.
    """
    report = steps.validate(annotations, out, video_root or None)
    print(f"{annotations}: {summary(report)}", flush=True)
    counts: dict[str, Any] = report["counts"]
    if not counts["accepted"] + counts["repaired"]:
        reasons = ", ".join(f"{number} {name.replace('-', ' ')}" for name, number in report["reasons"].items())
        looked = video_root or annotations.rpartition("/")[0] or "."
        missing = "video-not-found" in report["reasons"]
        hint = f"videos were looked for under {looked}: give the video root; " if missing else ""
        raise InputError(
            f"annotations {annotations}: every query was quarantined ({reasons}); {hint}see {out}/{REPORT_HTML}"
        )
    steps.check_quarantine(counts, max_quarantine)
    return counts


def run(
    annotations: str, video_root: str, eval_annotations: str, eval_video_root: str, max_quarantine: str,
    data: str, eval_data: str, report: str, metrics: Any,
) -> bool:  # fmt: skip
    """Validate both files into their artifacts' paths; returns whether evaluation will be in-sample.

    It is where there is no evaluation file, and where that shares a video with the training file.
    """
    with report_errors("validate"):
        counts = _validate(annotations, data, video_root, max_quarantine)
        shutil.copyfile(Path(data) / REPORT_HTML, report)
        for name, value in counts.items():
            metrics.log_metric(name, value)
        if eval_annotations:
            counts = _validate(eval_annotations, eval_data, eval_video_root or video_root, max_quarantine)
            for name, value in counts.items():
                metrics.log_metric(f"eval_{name}", value)
        else:
            Path(eval_data).mkdir(parents=True)
            shutil.copyfile(Path(data) / RIQ_JSONL, Path(eval_data) / RIQ_JSONL)
        trained_on, evaluated_on = (
            {base_name(sample.video) for sample in iterate_samples(Path(folder) / RIQ_JSONL)}
            for folder in (data, eval_data)
        )
        keep(metrics)
        shared = trained_on & evaluated_on
        if eval_annotations and shared:
            told = f"{len(shared)} of {len(evaluated_on)} evaluation videos are trained on, such as {min(shared)}"
            print(f"{told}: every figure is in-sample; `rarft validate --against` would keep them out", flush=True)
    return bool(shared)
