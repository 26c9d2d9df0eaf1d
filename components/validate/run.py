"""Body of the validation component."""

import shutil
from pathlib import Path
from typing import Any

from components.metrics_artifact import save_metadata
from components.runtime import run_component
from rarft import steps
from rarft.annotations.validate import REPORT_HTML


def run(
    annotations: str, video_root: str, eval_annotations: str, eval_video_root: str, max_quarantine: str,
    data: str, eval_data: str, report: str, metrics: Any,
) -> bool:  # fmt: skip
    """Validate both files into the artifacts; returns whether evaluation is in-sample."""
    with run_component("validate"):
        validated = steps.validate_splits(
            annotations, data, eval_annotations or None, eval_data, video_root or None, eval_video_root or None,
            max_quarantine,
        )  # fmt: skip
        shutil.copyfile(Path(data) / REPORT_HTML, report)
        for name, value in validated.counts.items():
            metrics.log_metric(name, value)
        for name, value in validated.eval_counts.items():
            metrics.log_metric(f"eval_{name}", value)
        save_metadata(metrics)
    return validated.in_sample
