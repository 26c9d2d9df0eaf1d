"""GRPO training on video: configuration, trainer, and the training run."""

import os

import torch

# Before anything imports DeepSpeed, which would search for an accelerator and warn that there is none.
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
