"""Default images of the components."""

from rarft import __version__

_REGISTRY = "ghcr.io/rarft"
VALIDATE_IMAGE = f"{_REGISTRY}/rarft-validate:{__version__}"  # without torch
STEPS_IMAGE = f"{_REGISTRY}/rarft-steps:{__version__}"  # all steps, on a CPU
TRAIN_IMAGE = f"{_REGISTRY}/rarft-train:{__version__}"  # all steps, on GPUs
