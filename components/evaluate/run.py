"""What the evaluation component does inside its container."""

import shutil
from pathlib import Path
from typing import Any

from rarft import steps
from rarft.errors import reported
from rarft.evaluation.evaluate import REPORT_HTML
from rarft.evaluation.report import headline_rows


def run(
    checkpoint: str, base: str, data: Any, encoder: str, in_sample: bool, gates: str,
    results: Any, report: Any, metrics: Any, confusion: Any,
) -> bool:  # fmt: skip
    """Evaluate into the `results` artifact, and log the headline figures; returns whether all gates were passed."""
    with reported("evaluate"):
        options = {"base": base or None, "encoder": encoder or None, "in_sample": in_sample}
        lines = [line.strip() for line in gates.splitlines() if line.strip()]
        found = steps.evaluate(checkpoint, data.path, results.path, **options, gates=lines)
        shutil.copyfile(Path(results.path) / REPORT_HTML, report.path)
        for name, value, before, _ in headline_rows(found):
            label = f"{name} (in-sample)" if in_sample else name
            if value is not None:
                metrics.log_metric(label, value)
            if before is not None:
                metrics.log_metric(f"{label}, base", before)
        counts = found["relevance"]["confusion"]
        rows = [[counts["tp"], counts["fn"]], [counts["fp"], counts["tn"]]]
        confusion.log_confusion_matrix(["relevant", "irrelevant"], rows)
        for gate in found["gates"]:
            print(f"gate {gate['gate']}: {'passed' if gate['passed'] else gate['reason']}", flush=True)
    return bool(found["passed"])
