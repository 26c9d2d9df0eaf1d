"""Default images of the components. They have no registry: build them, or pass the names of pushed ones."""

from rarft import __version__

VALIDATE_IMAGE = f"rarft-validate:{__version__}"  # without torch
STEPS_IMAGE = f"rarft-steps:{__version__}"  # all steps, on a CPU
TRAIN_IMAGE = f"rarft-train:{__version__}"  # all steps, on GPUs
