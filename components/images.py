"""The images that the components run in, unless a run names others."""

from rarft import __version__

_REGISTRY = "ghcr.io/rarft"
VALIDATE_IMAGE = f"{_REGISTRY}/rarft-validate:{__version__}"  # without torch
STEPS_IMAGE = f"{_REGISTRY}/rarft-steps:{__version__}"  # everything, for a CPU
TRAIN_IMAGE = f"{_REGISTRY}/rarft-train:{__version__}"  # everything, for GPUs
