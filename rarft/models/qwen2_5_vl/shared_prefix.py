"""One forward pass per group: a packed row with the prompt once, followed by its G completions.

The row is [prompt[:-1] | segment_1 | ... | segment_G] with segment_i = [prompt[-1], completion_i[:-1]], so that every
output of a segment predicts one completion token. The prefix attends to itself causally. Each segment attends to the
prefix and to its own past, never to another segment. Both are ordinary causal attentions, so fused kernels apply. The
attention is registered with transformers' AttentionInterface, and the layout is a keyword argument of the forward
pass: no model code is copied or patched.

Shapes: P prefix tokens, G segments of S tokens, H heads of D values.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_flash_attention
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from rarft.models.qwen2_5_vl.per_completion import IGNORE_INDEX, continued_positions
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.rollout import unwrap_model

ATTENTION = "rarft_shared_prefix"


@dataclass(frozen=True)
class PrefixLayout:
    """Lengths in a packed row."""

    prefix: int  # tokens of the shared prefix
    group: int  # number of segments
    segment: int  # tokens per segment


def _flash_takes(query: Tensor, key: Tensor, value: Tensor, dropout: float) -> bool:
    return can_use_flash_attention(SDPAParams(query, key, value, None, dropout, True, True))


def shared_prefix_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    prefix_layout: PrefixLayout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute the attention over a packed row; without a layout, transformers' own SDPA attention.

    The mask is unused in a packed row, which has padding only at the ends of segments.

    Args:
        query: Queries (1, H, P + G*S, D).
        key, value: Keys and values (1, H_kv, P + G*S, D).
        prefix_layout: P, G and S.

    Returns:
        Output of shape (1, P + G*S, H, D), and None for the weights.
    """
    if prefix_layout is None:
        options = {"dropout": dropout, "scaling": scaling, "is_causal": is_causal, **kwargs}
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    P, G, S = prefix_layout.prefix, prefix_layout.group, prefix_layout.segment
    H, H_kv, D = query.shape[1], key.shape[1], query.shape[3]
    if query.shape[0] != 1 or query.shape[2] != P + G * S:
        raise ValueError(f"query of shape {tuple(query.shape)} is not one packed row of {prefix_layout}")
    # Under autocast the rotary embedding returns queries and keys in float32, while values are in bfloat16.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if H_kv != H and query.is_cuda and not _flash_takes(query, key, value, dropout):
        # The other fused kernels have no grouped heads; CausalBias ignores `enable_gqa` for them.
        key, value = key.repeat_interleave(H // H_kv, dim=1), value.repeat_interleave(H // H_kv, dim=1)
    options = {"dropout_p": dropout, "scale": scaling, "enable_gqa": key.shape[1] != H}

    def segments(heads: Tensor) -> Tensor:
        return heads[0, :, P:].unflatten(1, (G, S)).transpose(0, 1)

    key_prefix, value_prefix = key[:, :, :P], value[:, :, :P]
    out_prefix = scaled_dot_product_attention(query[:, :, :P], key_prefix, value_prefix, is_causal=True, **options)
    out_segments = scaled_dot_product_attention(
        segments(query),
        torch.cat([key_prefix.expand(G, -1, -1, -1), segments(key)], dim=2),
        torch.cat([value_prefix.expand(G, -1, -1, -1), segments(value)], dim=2),
        attn_mask=causal_lower_right(S, P + S),
        **options,
    )
    return torch.cat([out_prefix.transpose(1, 2), out_segments.transpose(1, 2).reshape(1, G * S, H, D)], dim=1), None


AttentionInterface.register(ATTENTION, shared_prefix_attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


def enable_shared_prefix(model: Any) -> None:
    """Make the language model accept packed rows. Other forward passes are unchanged."""
    unwrap_model(model).set_attn_implementation({"text_config": ATTENTION})


def pack(prompt: PromptInputs, completion_ids_GC: Tensor, completion_mask_GC: Tensor) -> tuple[dict[str, Any], Tensor]:
    """Pack a group into one row of L = P-1 + G*C tokens.

    Args:
        prompt: The group's prompt of P tokens.
        completion_ids_GC: Completions, padded on the right.
        completion_mask_GC: 1 for their tokens, 0 for padding.

    Returns:
        Arguments of the forward pass, and shifted labels (1, G*C): for each output of a segment the completion token
        that it predicts, `IGNORE_INDEX` for padding.
    """
    G, C = completion_ids_GC.shape
    P = prompt.input_ids_L.numel()
    last = prompt.input_ids_L[-1:]
    segment_ids_GC = torch.cat([last.expand(G, 1), completion_ids_GC[:, :-1]], dim=1)
    positions_3C = torch.cat([prompt.position_ids_3L[:, -1:], continued_positions(prompt, C - 1)], dim=1)
    shift_labels = completion_ids_GC.masked_fill(completion_mask_GC == 0, IGNORE_INDEX).view(1, G * C)
    model_inputs = {
        "input_ids": torch.cat([prompt.input_ids_L[:-1], segment_ids_GC.flatten()])[None],
        "position_ids": torch.cat([prompt.position_ids_3L[:, :-1], positions_3C.repeat(1, G)], dim=1)[:, None],
        # A mapping keeps transformers from building an unused L x L mask.
        "attention_mask": {"full_attention": None},
        "prefix_layout": PrefixLayout(P - 1, G, C),
        "scored_from": P - 1,
        "pixel_values_videos": prompt.video_ND,
        "video_grid_thw": prompt.grid_thw_13,
    }
    return model_inputs, shift_labels
