"""Evaluation as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def evaluate(
    checkpoint: str,
    base: str,
    also_evaluate: str,
    data: dsl.Input[dsl.Dataset],
    encoder: str,
    in_sample: bool,
    gates: str,
    content: str,
    checkpoint_content: str,
    third_content: str,
    accelerators: str,
    processes: int,
    results: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
) -> NamedTuple("Outputs", passed=bool):  # type: ignore[valid-type]
    """Evaluate the trained checkpoint beside the one that it was trained from.

    Args:
        checkpoint: Checkpoint to evaluate, a path or URI.
        base: Checkpoint to compare with; empty for none.
        also_evaluate: A third checkpoint to show beside both; empty for none.
        data: Validated evaluation data.
        encoder: SentenceTransformer name or folder; empty for all-MiniLM-L6-v2.
        in_sample: Whether the checkpoint was trained on these data.
        gates: What it must reach to be shipped, one a line, such as relevance.f1_avg>=0.70 or ra_iou.mean>=base.
        content: Fingerprint of what is read: another one, and cached results are not taken.
        checkpoint_content: What changes when the checkpoint does, likewise.
        third_content: What changes when the third checkpoint does, likewise.
        accelerators: How many this machine must show.
        processes: How many share the queries on this machine; 0 for one a GPU, and one where there is none.
        results: predictions.jsonl, metrics.json and report.html.
        report: The report as a page.
        metrics: The headline figures.
        confusion: Queries that fit the video, and that do not, against what was said of them.

    Returns:
        Whether all gates were passed.
    """
    from components.evaluate.run import run

    checkpoints = (checkpoint, base, also_evaluate)
    outputs = (results.path, report.path, metrics, confusion)
    return (run(*checkpoints, data.path, encoder, in_sample, gates, accelerators, processes, *outputs),)
