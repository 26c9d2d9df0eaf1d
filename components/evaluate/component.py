"""Evaluation as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def evaluate(
    checkpoint: str,
    base: str,
    compare: str,
    data: dsl.Input[dsl.Dataset],
    encoder: str,
    in_sample: bool,
    gates: str,
    max_skipped_videos: int,
    cache_key: str,
    checkpoint_cache_key: str,
    compare_cache_key: str,
    accelerators: str,
    processes: int,
    results: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
) -> NamedTuple("Outputs", passed=bool):  # type: ignore[valid-type]
    """Evaluate the trained checkpoint and compare it with the model that was trained.

    Args:
        checkpoint: Path or URI of the checkpoint to evaluate.
        base: Checkpoint to compare with, which gates call `base`; empty for none.
        compare: Other checkpoints or predictions to compare with, as [NAME=]CHECKPOINT, comma-separated.
        data: Validated evaluation data.
        encoder: Name or folder of a SentenceTransformer; empty for all-MiniLM-L6-v2.
        in_sample: Whether the checkpoint was trained on these videos.
        gates: Conditions for promotion, one per line, such as relevance.f1_avg>=0.70 or ra_iou.mean>=base.
        max_skipped_videos: Number of unreadable videos to skip; the step fails if more cannot be read.
        cache_key: Fingerprint of the inputs; cached results are reused only if it is the same.
        checkpoint_cache_key: Fingerprint of the checkpoint, used in the same way.
        compare_cache_key: Fingerprint of the others to compare with, used in the same way.
        accelerators: Number of GPUs that this node must have.
        processes: Number of processes on this node; 0 for one per GPU, or one without GPUs.
        results: predictions.jsonl, metrics.json and report.html.
        report: Report as an HTML page.
        metrics: Headline metrics.
        confusion: Confusion matrix of relevant and irrelevant queries.

    Returns:
        Whether the checkpoint passed all gates.
    """
    from components.runtime import copy_report, log_metrics, run_component, save_metadata
    from rarft import steps
    from rarft.errors import input_name

    with run_component("evaluate") as logger:
        with input_name("gates"):
            conditions = steps.parse_gates(gates)
        arguments = {
            "checkpoint": checkpoint,
            "data": data.path,
            "out": results.path,
            "encoder": encoder,
            "compare": [*([f"base={base}"] if base else []), *steps.parse_compare(compare)],
            "in_sample": in_sample,
            "gates": conditions,
            "max_skipped_videos": max_skipped_videos,
        }
        evaluation = steps.run_step("evaluate", arguments, processes, int(accelerators))
        copy_report(results, report)
        log_metrics(metrics, steps.headline_metrics(evaluation))
        confusion.log_confusion_matrix(["relevant", "irrelevant"], steps.confusion_matrix(evaluation))
        save_metadata(confusion)
        for gate in evaluation["gates"]:
            result = "passed" if gate["passed"] else f"failed: {gate['reason']}"
            logger.info("gate %s: %s", gate["gate"], result)
    return (bool(evaluation["passed"]),)
