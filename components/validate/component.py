"""Validation as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.images import VALIDATE_IMAGE


@dsl.component(base_image=VALIDATE_IMAGE, install_kfp_package=False)
def validate(
    annotations: str,
    video_root: str,
    eval_annotations: str,
    eval_video_root: str,
    max_quarantine: str,
    content: str,
    data: dsl.Output[dsl.Dataset],
    eval_data: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("Outputs", in_sample=bool):  # type: ignore[valid-type]
    """Check and repair RIQ annotations; every query ends accepted, repaired or quarantined.

    Args:
        annotations: Path of the training annotations, a JSON list or JSON Lines.
        video_root: Folder that their videos lie in; empty for the folder of the annotations.
        eval_annotations: Path of held-out annotations; empty to evaluate on the training data.
        eval_video_root: Folder that the held-out videos lie in; empty for `video_root`.
        max_quarantine: Most queries of a file that may be quarantined, such as 5% or 120; empty for any number.
        content: Fingerprint of what is read: another one, and cached results are not taken.
        data: riq.jsonl, quarantine.jsonl, report.html and report.json of the training annotations.
        eval_data: The same of the held-out annotations, or the training data once more.
        report: The training data's report as a page.
        metrics: Counts of items and queries.

    Returns:
        Whether evaluation on `eval_data` will be in-sample: it shares a video with the training data.
    """
    from components.validate.run import run

    outputs = (data.path, eval_data.path, report.path, metrics)
    return (run(annotations, video_root, eval_annotations, eval_video_root, max_quarantine, *outputs),)
