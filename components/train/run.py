"""Body of the training component."""

from components.runtime import run_component
from rarft import steps

_MAX_RESTARTS = 3  # of all processes, after one died; each resumes from the newest complete checkpoint


def run(
    data: str, embeddings: str, encoder: str, training: str, output_uri: str, videos_fingerprint: str,
    accelerators: int, processes: int,
) -> tuple[str, str, str]:  # fmt: skip
    """Train on this node; returns the final checkpoint, the model that was trained, and a cache key."""
    with run_component("train"):
        inputs = steps.training_inputs(data, embeddings, encoder, videos_fingerprint)
        arguments = {"training": training, "inputs": inputs, "out": output_uri}
        trained = steps.run_step("train_from_yaml", arguments, processes, accelerators, _MAX_RESTARTS, "train")
    return trained["checkpoint"], trained["base"], trained["cache_key"]
