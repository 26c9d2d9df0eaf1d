"""GRPO on video: configuration, trainer, and the training run."""

import os

import torch

# Before anything imports DeepSpeed, which otherwise looks for an accelerator and warns that there is none.
if not torch.cuda.is_available():
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
