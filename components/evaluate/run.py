"""What the evaluation component does inside its container."""

import shutil
from pathlib import Path
from typing import Any

from components.figures import keep
from rarft.distributed.torchrun import check_accelerators, run_step
from rarft.errors import report_errors
from rarft.evaluation.gates import parse_gates
from rarft.evaluation.report import REPORT_HTML, headline_rows


def run(
    checkpoint: str, base: str, also_evaluate: str, data: str, encoder: str, in_sample: bool, gates: str,
    accelerators: str, processes: int,
    results: str, report: str, metrics: Any, confusion: Any,
) -> bool:  # fmt: skip
    """Evaluate into the `results` artifact, and log the headline figures; returns whether all gates were passed."""
    with report_errors("evaluate"):
        paths = {"checkpoint": checkpoint, "data": data, "out": results}
        compare = [source for source in (base, also_evaluate) if source]
        options = {"compare": compare, "encoder": encoder or None, "in_sample": in_sample}
        check_accelerators(int(accelerators))
        found = run_step("evaluate", {**paths, **options, "gates": parse_gates(gates)}, processes)
        shutil.copyfile(Path(results) / REPORT_HTML, report)
        for name, value, before, _ in headline_rows(found):
            label = f"{name} (in-sample)" if in_sample else name
            if value is not None:
                metrics.log_metric(label, value)
            if before is not None:
                metrics.log_metric(f"{label}, base", before)
        counts = found["relevance"]["confusion"]
        rows = [[counts["tp"], counts["fn"]], [counts["fp"], counts["tn"]]]
        confusion.log_confusion_matrix(["relevant", "irrelevant"], rows)
        keep(metrics, confusion)
        for gate in found["gates"]:
            print(f"gate {gate['gate']}: {'passed' if gate['passed'] else gate['reason']}", flush=True)
    return bool(found["passed"])
