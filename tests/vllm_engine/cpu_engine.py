"""Run `rarft` with vLLM's CPU engine; to be started as a process, because the engine leaves threads and groups behind.

The CPU engine packs the weights of linear layers and drops the originals, so that weights cannot be synchronized. Here
it keeps them, as on a GPU.
"""

import os
import sys

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")


def keep_weights():
    """Replace the packed products of linear layers by products with their weights."""
    import torch
    from vllm.model_executor.layers import utils

    def dispatch(layer, remove_weight):
        layer.cpu_linear = torch.nn.functional.linear

    utils.dispatch_cpu_unquantized_gemm = dispatch


if __name__ == "__main__":
    from rarft.cli.main import main

    keep_weights()
    main(sys.argv[1:])
