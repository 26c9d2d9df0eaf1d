"""Check of a run's parameters and fingerprint of its inputs, as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.images import VALIDATE_IMAGE


@dsl.component(base_image=VALIDATE_IMAGE, install_kfp_package=False)
def fingerprint(
    annotations: str,
    video_root: str,
    eval_annotations: str,
    eval_video_root: str,
    format: str,
    durations: str,
    encoder: str,
    compare: str,
    gates: str,
    output_uri: str,
    final_uri: str,
) -> NamedTuple("Outputs", cache_key=str, videos_fingerprint=str, compare_fingerprint=str):  # type: ignore[valid-type]
    """Check the parameters and fingerprint the inputs and the code. Not cached, so that other steps can be.

    Args:
        annotations: Path or URI of the training annotations.
        video_root: Folder of their videos; empty for the folder of the annotations.
        eval_annotations: Path or URI of held-out annotations; empty for none.
        eval_video_root: Folder of the held-out videos; empty for `video_root`.
        format: Format of the annotations; checked here, and fingerprinted if it is a function in a file.
        durations: File with the durations of videos; empty for none.
        encoder: Name or folder of a SentenceTransformer; empty for all-MiniLM-L6-v2.
        compare: Checkpoints or predictions to compare with, as [NAME=]CHECKPOINT, comma-separated; checked here.
        gates: Conditions for promotion; parsed here, so that a mistake is reported before training.
        output_uri: Folder for checkpoints; checked here to be writable.
        final_uri: Release location; checked here to be writable.

    Returns:
        Three texts: one changes when data, encoder or code change, one when the training videos change, and one when
        the checkpoints or predictions to compare with change.
    """
    from components.runtime import run_component
    from rarft import steps
    from rarft.errors import input_name
    from rarft.storage.location import parse_location

    with run_component("fingerprint"):
        with input_name("gates"):
            steps.parse_gates(gates)
        with input_name("format"):
            steps.check_format(format)
        with input_name("compare"):
            compare_fingerprint = steps.fingerprint_candidates(steps.parse_compare(compare))
        for name, uri in {"output_uri": output_uri, "final_uri": final_uri}.items():
            if uri:
                with input_name(name):
                    parse_location(uri).make()
        inputs = (annotations, video_root, eval_annotations, eval_video_root, encoder)
        files = [file for file in (durations, steps.format_file(format)) if file]
        fingerprints = steps.fingerprint(*inputs, files=files, packages=("rarft", "components"))
        return *fingerprints, compare_fingerprint
