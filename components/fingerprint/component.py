"""What the run reads, as a Kubeflow component."""

from kfp import dsl

from components.images import VALIDATE_IMAGE


@dsl.component(base_image=VALIDATE_IMAGE, install_kfp_package=False)
def fingerprint(annotations: str, video_root: str, eval_annotations: str, eval_video_root: str, encoder: str) -> str:
    """Look at what the run reads, and at the code that will read it. Runs every time, and lets later steps be cached.

    Args:
        annotations: Path or URI of the training annotations.
        video_root: Folder that their videos lie in; empty for the folder of the annotations.
        eval_annotations: Path or URI of held-out annotations; empty for none.
        eval_video_root: Folder that the held-out videos lie in; empty for `video_root`.
        encoder: SentenceTransformer name or folder; empty for all-MiniLM-L6-v2.

    Returns:
        A text that changes when any of it does.
    """
    from rarft import steps
    from rarft.errors import reported

    with reported("fingerprint"):
        roots = (video_root or None, eval_annotations or None, eval_video_root or None)
        return steps.fingerprint(annotations, *roots, encoder or None, ("rarft", "components"))
