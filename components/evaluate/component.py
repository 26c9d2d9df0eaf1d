"""Evaluation as a Kubeflow component."""

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    checkpoint: str,
    base: str,
    data: dsl.Input[dsl.Dataset],
    encoder: str,
    in_sample: bool,
    results: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Evaluate the trained checkpoint beside the one that it was trained from.

    Args:
        checkpoint: Checkpoint to evaluate.
        base: Checkpoint to compare with; empty for none.
        data: Validated evaluation data.
        encoder: SentenceTransformer name or folder; empty for all-MiniLM-L6-v2.
        in_sample: Whether the checkpoint was trained on these data.
        results: predictions.jsonl, metrics.json and report.html.
        report: The report as a page.
        metrics: The headline figures.
    """
    from components.evaluate.run import run

    run(checkpoint, base, data, encoder, in_sample, results, report, metrics)
