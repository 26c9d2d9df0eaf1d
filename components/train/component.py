"""Training as a Kubeflow component."""

from typing import NamedTuple

from kfp import dsl

from components.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(
    data: dsl.Input[dsl.Dataset],
    embeddings: dsl.Input[dsl.Artifact],
    encoder: str,
    training: str,
    output_uri: str,
) -> NamedTuple("Outputs", checkpoint=str, base=str):  # type: ignore[valid-type]
    """Train by GRPO. Checkpoints go straight to `output_uri`, not through an artifact.

    Args:
        data: Validated training data.
        embeddings: Reference embeddings of the same data.
        encoder: SentenceTransformer name or folder; empty for all-MiniLM-L6-v2.
        training: Flags of `rarft train` as one YAML text, such as `preset: tiny`.
        output_uri: Where `checkpoints/` is made.

    Returns:
        The final checkpoint's path, and the model that it was trained from.
    """
    from rarft import steps
    from rarft.errors import reported

    with reported("train"):
        inputs = {"train_data_path": data.path, "embeddings": embeddings.path, "encoder": encoder or None}
        return steps.train_from_yaml(training, inputs, output_uri)
