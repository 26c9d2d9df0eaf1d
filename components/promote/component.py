"""Promotion as a Kubeflow component."""

from kfp import dsl

from components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def promote(checkpoint: str, results: dsl.Input[dsl.Artifact], passed: bool, final_uri: str) -> str:
    """Copy a checkpoint that passed its gates, with its metrics, to its release location.

    Args:
        checkpoint: Checkpoint that was evaluated.
        results: Results of its evaluation.
        passed: Whether it passed its gates.
        final_uri: Path or URI of the release location; empty to skip promotion.

    Returns:
        The release location; empty if the checkpoint was not promoted.
    """
    from components.runtime import run_component
    from rarft import steps

    with run_component("promote"):
        return steps.promote_if_passed(checkpoint, results.path, final_uri, passed)
