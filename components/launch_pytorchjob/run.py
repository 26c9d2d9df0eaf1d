"""What the launching component does inside its container."""

from typing import Any

from rarft.errors import report_errors


def run(
    data: str, embeddings: str, encoder: str, training: str, output_uri: str, videos: str, job: str,
    settings: dict[str, Any],
) -> tuple[str, str, str]:  # fmt: skip
    """Train by a PyTorchJob; returns the final checkpoint, its base, and what changes when it does."""
    with report_errors("launch_pytorchjob"):
        from rarft import steps

        inputs = {
            "train_data_path": data, "embeddings": embeddings, "encoder": encoder or None, "data_version": videos
        }  # fmt: skip
        trained = steps.train_on_cluster(training, inputs, output_uri, {"name": job, **settings})
    return trained["checkpoint"], trained["base"], trained["content"]
