"""A key-value cache in which the completions of a prompt share the prompt's part, and its attention for decoding.

The prompt's keys and values are stored and read once per prompt, not once per completion: the queries of its G
completions, and of the query heads of a key head, are rows of one matrix product. Each completion has a cache
for its tokens. One softmax covers both parts, so the result is that of an ordinary cache.

Shapes: B prompts of P tokens, padded on the left; G completions of each, N = B * G, of C tokens; H query heads, K key
heads, D values per head.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import AttentionInterface, Cache, DynamicCache
from transformers.cache_utils import DynamicLayer
from transformers.masking_utils import AttentionMaskInterface

ATTENTION = "rarft_shared_cache"


@dataclass(frozen=True)
class SharedStates:
    """Keys or values of one layer."""

    prefix_BKPD: Tensor  # of the prompts
    suffix_NKCD: Tensor  # of the completions
    bias_B11P: Tensor  # zero for tokens of the prompts, minus infinity for padding


class _Layer(DynamicLayer):
    def __init__(self, keys_BKPD: Tensor, values_BKPD: Tensor, bias_B11P: Tensor) -> None:
        super().__init__()
        self.prefix, self.bias_B11P = (keys_BKPD, values_BKPD), bias_B11P

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        suffix = super().update(key_states, value_states, *args, **kwargs)
        keys, values = (SharedStates(*states, self.bias_B11P) for states in zip(self.prefix, suffix, strict=True))
        return keys, values

    def get_seq_length(self) -> int:
        return self.prefix[0].shape[2] + super().get_seq_length()


def share_prefixes(caches: list[DynamicCache]) -> Cache:
    """Return a cache for decoding several completions of each prompt, from the caches of B prompts."""
    lengths = [cache.get_seq_length() for cache in caches]
    paddings = [max(lengths) - length for length in lengths]
    first = caches[0].layers[0].keys
    bias_B11P = torch.zeros((len(caches), 1, 1, max(lengths)), device=first.device)
    for row, padding in enumerate(paddings):
        bias_B11P[row, ..., :padding] = -torch.inf
    layers = []
    for index in range(len(caches[0].layers)):
        states: tuple[list[Tensor], list[Tensor]] = ([], [])
        for cache, padding in zip(caches, paddings, strict=True):
            layer = cache.layers[index]
            for rows, heads_1KPD in zip(states, (layer.keys, layer.values), strict=True):
                rows.append(pad(heads_1KPD, (0, 0, padding, 0)))
            cache.layers[index] = None  # both copies of one layer are in memory at a time
        layers.append(_Layer(torch.cat(states[0]), torch.cat(states[1]), bias_B11P))
    return Cache(layers=layers)


def _matmul_float32(left: Tensor, right: Tensor) -> Tensor:
    """Return a batched product in float32, whose factors are not copied in it on a GPU."""
    if left.dtype == torch.float32:
        return left @ right
    return torch.bmm(left, right, out_dtype=torch.float32) if left.is_cuda else left.float() @ right.float()


def shared_cache_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: SharedStates,
    value: SharedStates,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Compute the attention of one new token per completion; the mask is that of the cache.

    Args:
        query: Queries (N, H, 1, D).

    Returns:
        Output of shape (N, 1, H, D), and None for the weights.
    """
    B, K, P, D = key.prefix_BKPD.shape
    N, H, queries, _ = query.shape
    if queries != 1:
        raise ValueError(f"a shared cache decodes one token per completion, not {queries}")
    G, R = N // B, H // K
    query = query.to(value.prefix_BKPD.dtype) * (D**-0.5 if scaling is None else scaling)

    def by_prompt(heads: Tensor) -> Tensor:
        """Regroup rows per completion (N*K, R, X) into rows per prompt (B*K, G*R, X)."""
        return heads.view(B, G, K, R, -1).transpose(1, 2).reshape(B * K, G * R, -1)

    def by_completion(heads: Tensor) -> Tensor:
        return heads.view(B, K, G, R, -1).transpose(1, 2).reshape(N * K, R, -1)

    rows = query.reshape(N * K, R, D)
    with torch.autocast(query.device.type, enabled=False):  # it would round the scores
        prefix_scores = _matmul_float32(by_prompt(rows), key.prefix_BKPD.flatten(0, 1).mT)
        prefix_scores = (prefix_scores.view(B, K, G * R, P) + key.bias_B11P).flatten(0, 1)
        suffix_scores = by_prompt(_matmul_float32(rows, key.suffix_NKCD.flatten(0, 1).mT))
        weights = torch.cat([prefix_scores, suffix_scores], -1).softmax(-1).to(query.dtype)
        prefix_weights, suffix_weights = weights.split([P, weights.shape[-1] - P], -1)
        output = by_completion(_matmul_float32(prefix_weights, value.prefix_BKPD.flatten(0, 1)))
        output = output + _matmul_float32(by_completion(suffix_weights), value.suffix_NKCD.flatten(0, 1))
    return output.to(query.dtype).view(N, 1, H, D), None


def _no_mask(*args: Any, **kwargs: Any) -> None:
    return None


AttentionInterface.register(ATTENTION, shared_cache_attention)
AttentionMaskInterface.register(ATTENTION, _no_mask)
