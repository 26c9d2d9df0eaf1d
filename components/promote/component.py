"""Promotion as a Kubeflow component."""

from kfp import dsl

from components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def promote(checkpoint: str, results: dsl.Input[dsl.Artifact], passed: bool, final_uri: str) -> str:
    """Copy a checkpoint that passed its gates, with its metrics, to where it is shipped from.

    Args:
        checkpoint: Checkpoint that was evaluated.
        results: What its evaluation wrote.
        passed: Whether it passed the gates.
        final_uri: Where it goes, a path or URI; empty to leave it where it is.

    Returns:
        Where it went; empty if it went nowhere.
    """
    from components.promote.run import run

    return run(checkpoint, results.path, passed, final_uri)
