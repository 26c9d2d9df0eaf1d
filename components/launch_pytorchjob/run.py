"""Body of the component that trains with a PyTorchJob."""

from typing import Any

from components.runtime import run_component
from rarft import steps


def run(
    data: str, embeddings: str, encoder: str, training: str, output_uri: str, videos_fingerprint: str,
    job: dict[str, Any],
) -> tuple[str, str, str]:  # fmt: skip
    """Train with a PyTorchJob; returns the final checkpoint, the model that was trained, and a cache key."""
    with run_component("launch_pytorchjob"):
        inputs = steps.training_inputs(data, embeddings, encoder, videos_fingerprint)
        trained = steps.train_on_cluster(training, inputs, output_uri, job)
    return trained["checkpoint"], trained["base"], trained["cache_key"]
