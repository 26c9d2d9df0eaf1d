"""`rarft` on a rank of a CPU-only DeepSpeed run: what ZeRO-3 needs there, done before anything is configured."""

import os
import sys

os.environ["DS_ACCELERATOR"] = "cpu"

import deepspeed
import deepspeed.ops
import torch

# Else DeepSpeed compiles a shared-memory communication kernel first, for minutes.
deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
torch.set_num_threads(1)
deepspeed.init_distributed("gloo", auto_mpi_discovery=False)

from rarft.cli import main

main(sys.argv[1:])
