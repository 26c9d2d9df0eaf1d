"""Conversion of annotations as a Kubeflow component."""

from kfp import dsl

from components.images import VALIDATE_IMAGE


@dsl.component(base_image=VALIDATE_IMAGE, install_kfp_package=False)
def convert(
    annotations: str,
    video_root: str,
    eval_annotations: str,
    eval_video_root: str,
    format: str,
    durations: str,
    cache_key: str,
    converted: dsl.Output[dsl.Dataset],
    metrics: dsl.Output[dsl.Metrics],
) -> None:
    """Convert annotations of another format to the RIQ format; annotations in the RIQ format are left as they are.

    Args:
        annotations: Path or URI of the training annotations.
        video_root: Folder of their videos; empty for the folder of the annotations.
        eval_annotations: Path or URI of held-out annotations; empty for none.
        eval_video_root: Folder of the held-out videos; empty for `video_root`.
        format: Format of both, auto to recognize it, or riq if there is nothing to convert.
        durations: File with the durations of videos, for records without one; empty for none.
        cache_key: Fingerprint of the inputs; cached results are reused only if it is the same.
        converted: annotations.jsonl, eval_annotations.jsonl and conversion.json; only the last one for riq.
        metrics: Numbers of records and queries.
    """
    from components.runtime import log_metrics, run_component
    from rarft import steps

    with run_component("convert"):
        roots = (video_root, eval_video_root)
        counts = steps.convert_splits(annotations, eval_annotations, converted.path, format, durations, *roots)
        log_metrics(metrics, counts)
