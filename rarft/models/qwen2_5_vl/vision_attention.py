"""Attention of the vision tower over segments: the windows of most layers, the time steps of the others.

transformers calls its kernel once per segment. Here one variable-length kernel of torch covers all segments on a GPU.
Elsewhere each length is one batch of `scaled_dot_product_attention`; the windows of a video have at most four lengths.

Shapes: N patches, H heads of D values, S segments.
"""

import functools
import importlib.util
import logging
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from rarft.models.qwen2_5_vl.rollout import unwrap_model

logger = logging.getLogger(__name__)

# transformers passes all segments in one call if the name of the attention contains "flash".
BATCHED, VARLEN = "rarft_flash_batched", "rarft_flash_varlen"


@functools.cache
def _log_kernel(kernel: str) -> None:
    logger.info("vision attention: %s", kernel)


@functools.cache
def has_varlen_kernel() -> bool:
    """Check whether torch has variable-length attention and the GPU can run it."""
    found = importlib.util.find_spec("torch.nn.attention.varlen") is not None
    return found and torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def batched_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute the attention within each segment, with one batch per length.

    Args:
        query, key, value: States of shape (1, H, N, D).
        cu_seq_lens_q: Bounds of the segments (S + 1,).

    Returns:
        Output (1, N, H, D), and None for the weights.
    """
    _log_kernel("scaled_dot_product_attention, one call per window size")
    # Under autocast the rotary embedding returns queries and keys in float32, while values are in bfloat16.
    states_NHD = [states[0].transpose(0, 1).to(value.dtype) for states in (query, key, value)]
    starts_S, lengths_S = cu_seq_lens_q[:-1], cu_seq_lens_q.diff()
    rows, outputs = [], []
    for length in lengths_S.unique().tolist():
        first_S1 = starts_S[lengths_S == length, None]
        rows.append((first_S1 + torch.arange(length, device=first_S1.device)).flatten())
        segments = [states[rows[-1]].unflatten(0, (-1, length)).transpose(1, 2) for states in states_NHD]
        outputs.append(scaled_dot_product_attention(*segments, scale=scaling).transpose(1, 2).flatten(0, 1))
    return torch.cat(outputs)[torch.cat(rows).argsort()][None], None


def varlen_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[Tensor, None]:
    """Compute the same with torch's variable-length kernel, which requires a GPU and half precision.

    Values in float32, which mean that the run has no mixed precision, are computed as without the kernel.

    The scores have the usual factor D**-0.5. `max_length_q` is the length of the longest segment.
    """
    from torch.nn.attention.varlen import varlen_attn

    if value.dtype == torch.float32:
        return batched_attention(module, query, key, value, attention_mask, cu_seq_lens_q=cu_seq_lens_q)
    _log_kernel("torch's varlen_attn")
    # Under autocast the rotary embedding returns queries and keys in float32, while values are in bfloat16.
    states_NHD = (states[0].transpose(0, 1).to(value.dtype) for states in (query, key, value))
    bounds = cu_seq_lens_q.to(torch.int32)
    output_NHD = varlen_attn(*states_NHD, bounds, bounds, max_length_q, max_length_q)
    return output_NHD[None], None


AttentionInterface.register(BATCHED, batched_attention)
AttentionInterface.register(VARLEN, varlen_attention)


def enable_segment_attention(model: Any, allow_varlen: bool = True) -> None:
    """Make the vision tower use one call per layer, or per length of segments."""
    kernel = VARLEN if allow_varlen and has_varlen_kernel() else BATCHED
    unwrap_model(model).set_attn_implementation({"vision_config": kernel})
