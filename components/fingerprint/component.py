"""What the run reads, as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.images import VALIDATE_IMAGE


@dsl.component(base_image=VALIDATE_IMAGE, install_kfp_package=False)
def fingerprint(
    annotations: str,
    video_root: str,
    eval_annotations: str,
    eval_video_root: str,
    encoder: str,
    also_evaluate: str,
    gates: str,
    output_uri: str,
    final_uri: str,
) -> NamedTuple("Outputs", content=str, videos=str, third=str):  # type: ignore[valid-type]
    """Look at what the run reads, and at the code that will read it. Runs every time, and lets later steps be cached.

    Args:
        annotations: Path or URI of the training annotations.
        video_root: Folder that their videos lie in; empty for the folder of the annotations.
        eval_annotations: Path or URI of held-out annotations; empty for none.
        eval_video_root: Folder that the held-out videos lie in; empty for `video_root`.
        encoder: SentenceTransformer name or folder; empty for all-MiniLM-L6-v2.
        also_evaluate: A third checkpoint that will be evaluated; empty for none. A folder or URI is looked at here.
        gates: What the checkpoint must reach; read here so that a mistake is told before training.
        output_uri: Where checkpoints will go; that it can be written to is tried here.
        final_uri: Where a checkpoint that passes will go; the same.

    Returns:
        A text that changes when data, encoder or code do, one that changes when the training videos do, and one that
        changes when the third checkpoint does.
    """
    from components.fingerprint.run import run

    checks = (also_evaluate, gates, output_uri, final_uri)
    return run(annotations, video_root, eval_annotations, eval_video_root, encoder, *checks)
