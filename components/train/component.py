"""Training as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.images import STEPS_IMAGE


@dsl.component(base_image=STEPS_IMAGE, install_kfp_package=False)
def train(
    data: dsl.Input[dsl.Dataset],
    embeddings: dsl.Input[dsl.Artifact],
    encoder: str,
    training: str,
    output_uri: str,
    videos_fingerprint: str,
    accelerators: str,
    processes: int,
) -> NamedTuple("Outputs", checkpoint=str, base=str, cache_key=str):  # type: ignore[valid-type]
    """Train with GRPO. Checkpoints are written directly to `output_uri`, because artifacts of a failed step are lost.

    Args:
        data: Validated training data.
        embeddings: Reference embeddings of the same data.
        encoder: Name or folder of a SentenceTransformer; empty for all-MiniLM-L6-v2.
        training: Flags of `rarft train` as YAML, such as `preset: tiny`.
        output_uri: Path or URI for `checkpoints/`.
        videos_fingerprint: Fingerprint of the training videos; a run resumes only if it is the same.
        accelerators: Number of GPUs that this node must have.
        processes: Number of processes on this node; 0 for one per GPU, or one without GPUs.

    Returns:
        Path or URI of the final checkpoint, the model that was trained, and a text that changes when the checkpoint
        changes.
    """
    from components.runtime import run_component
    from rarft import steps

    restarts = 3  # of all processes, after one died; each resumes from the newest complete checkpoint
    with run_component("train"):
        inputs = steps.training_inputs(data.path, embeddings.path, encoder, videos_fingerprint)
        arguments = {"training": training, "inputs": inputs, "out": output_uri}
        trained = steps.run_step("train_from_yaml", arguments, processes, int(accelerators), restarts, "train")
    return tuple(trained)
