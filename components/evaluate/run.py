"""Body of the evaluation component."""

import logging
import shutil
from pathlib import Path
from typing import Any

from components.metrics_artifact import save_metadata
from components.runtime import run_component
from rarft import steps
from rarft.errors import input_name
from rarft.evaluation.report import REPORT_HTML

logger = logging.getLogger(__name__)


def run(
    checkpoint: str, base: str, compare: str, data: str, encoder: str, in_sample: bool, gates: str,
    accelerators: str, processes: int,
    results: str, report: str, metrics: Any, confusion: Any,
) -> bool:  # fmt: skip
    """Evaluate into the artifacts; returns whether the checkpoint passed all gates."""
    with run_component("evaluate"):
        with input_name("gates"):
            conditions = steps.parse_gates(gates)
        arguments = {
            "checkpoint": checkpoint, "data": data, "out": results, "encoder": encoder or None,
            "compare": [*([f"base={base}"] if base else []), *steps.parse_compare(compare)],
            "in_sample": in_sample, "gates": conditions,
        }  # fmt: skip
        evaluation = steps.run_step("evaluate", arguments, processes, int(accelerators))
        shutil.copyfile(Path(results) / REPORT_HTML, report)
        for label, value in steps.headline_metrics(evaluation).items():
            metrics.log_metric(label, value)
        confusion.log_confusion_matrix(["relevant", "irrelevant"], steps.confusion_matrix(evaluation))
        save_metadata(metrics, confusion)
        for gate in evaluation["gates"]:
            logger.info("gate %s: %s", gate["gate"], "passed" if gate["passed"] else f"failed: {gate['reason']}")
    return bool(evaluation["passed"])
