"""What the training component does inside its container."""

from rarft.distributed.torchrun import check_accelerators, run_step
from rarft.errors import report_errors

# A rank that dies takes the others along; all start again and go on from the newest complete checkpoint.
_RESTARTS = 3


def run(
    data: str, embeddings: str, encoder: str, training: str, output_uri: str, videos: str, accelerators: int,
    processes: int,
) -> tuple[str, str, str]:  # fmt: skip
    """Train on this machine; returns the final checkpoint, its base, and what changes when it does."""
    with report_errors("train"):
        check_accelerators(accelerators)
        inputs = {
            "train_data_path": data, "embeddings": embeddings, "encoder": encoder or None, "data_version": videos
        }  # fmt: skip
        arguments = {"training": training, "inputs": inputs, "out": output_uri}
        trained = run_step("train_from_yaml", arguments, processes, _RESTARTS, name="train")
    return trained["checkpoint"], trained["base"], trained["content"]
