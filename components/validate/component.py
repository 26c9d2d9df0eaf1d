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
    probe: str,
    video_fps: float,
    crop_times: str,
    cache_key: str,
    converted: dsl.Input[dsl.Dataset],
    data: dsl.Output[dsl.Dataset],
    eval_data: dsl.Output[dsl.Dataset],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
) -> NamedTuple("Outputs", in_sample=bool):  # type: ignore[valid-type]
    """Check and repair RIQ annotations; every query is accepted, repaired or quarantined.

    Args:
        annotations: Path or URI of the training annotations, a JSON list or JSON Lines.
        video_root: Folder of their videos; empty for the folder of the annotations.
        eval_annotations: Path or URI of held-out annotations; empty to evaluate on the training data.
        eval_video_root: Folder of the held-out videos; empty for `video_root`.
        max_quarantine: Limit of quarantined queries per file, such as 5% or 120; empty for no limit.
        probe: How videos are read: decode for the frames that training samples, header, or none.
        video_fps: Frames per second that training samples.
        crop_times: What times of items with a crop count from: absolute, relative to the crop, or auto.
        cache_key: Fingerprint of the inputs; cached results are reused only if it is the same.
        converted: Result of the step before, which is validated instead of annotations in another format.
        data: riq.jsonl, quarantine.jsonl, report.html and report.json of the training annotations.
        eval_data: The same files of the held-out annotations, or a copy of the training data.
        report: Report of the training annotations as an HTML page.
        metrics: Numbers of items and queries.

    Returns:
        Whether evaluation on `eval_data` is in-sample, because it shares a video with the training data.
    """
    from components.runtime import copy_report, log_metrics, run_component
    from rarft import steps

    with run_component("validate"):
        options = (video_root, eval_video_root, max_quarantine, probe, video_fps, crop_times)
        validated = steps.validate_splits(
            annotations, data.path, eval_annotations, eval_data.path, *options, converted=converted.path
        )
        copy_report(data, report)
        eval_counts = {f"eval_{name}": value for name, value in validated.eval_counts.items()}
        log_metrics(metrics, {**validated.counts, **eval_counts})
    return (validated.in_sample,)
