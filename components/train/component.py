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
    videos: str,
    accelerators: str,
    processes: int,
) -> NamedTuple("Outputs", checkpoint=str, base=str, content=str):  # type: ignore[valid-type]
    """Train by GRPO. Checkpoints go straight to `output_uri`, not through an artifact.

    Args:
        data: Validated training data.
        embeddings: Reference embeddings of the same data.
        encoder: SentenceTransformer name or folder; empty for all-MiniLM-L6-v2.
        training: Flags of `rarft train` as one YAML text, such as `preset: tiny`.
        output_uri: Where `checkpoints/` is made, a path or URI.
        videos: What changes when the videos do; a run goes on only with the same.
        accelerators: How many this machine must show.
        processes: How many train together on this machine; 0 for one a GPU, and one where there is none.

    Returns:
        The final checkpoint's path or URI, the model that it was trained from, and what changes when it does.
    """
    from components.train.run import run

    return run(data.path, embeddings.path, encoder, training, output_uri, videos, int(accelerators), processes)
