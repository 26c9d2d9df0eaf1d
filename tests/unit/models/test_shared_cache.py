"""Decoding with the prompt's cache shared by its completions."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import DynamicCache

from rarft.models.qwen2_5_vl.shared_cache import share_prefixes, shared_cache_attention

K, H, D = 2, 6, 8


def cache_of(length, layers=1):
    cache = DynamicCache()
    for layer in range(layers):
        cache.update(torch.randn(1, K, length, D), torch.randn(1, K, length, D), layer)
    return cache


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("lengths", [[9], [9, 4, 7]], ids=["one prompt", "ragged"])
def test_attention_equals_separate_caches(lengths, dtype):
    """Compare with the ordinary attention of each completion over its own copy of everything."""
    torch.manual_seed(0)
    G, steps = 3, 4
    prefixes = [(torch.randn(K, P, D, dtype=dtype), torch.randn(K, P, D, dtype=dtype)) for P in lengths]
    caches = []
    for keys, values in prefixes:
        caches.append(DynamicCache())
        caches[-1].update(keys[None], values[None], 0)
    cache = share_prefixes(caches)
    assert cache.get_seq_length() == max(lengths)
    N = len(lengths) * G
    new_keys, new_values = torch.randn(2, N, K, steps, D, dtype=dtype)
    for step in range(steps):
        query = torch.randn(N, H, 1, D, dtype=dtype)
        states = cache.update(new_keys[:, :, step : step + 1], new_values[:, :, step : step + 1], 0)
        output, _ = shared_cache_attention(None, query, *states, None, scaling=D**-0.5)
        assert cache.get_seq_length() == max(lengths) + step + 1
        for row in range(N):
            keys, values = (
                torch.cat([prefix, new[row, :, : step + 1]], 1).repeat_interleave(H // K, 0).float()
                for prefix, new in zip(prefixes[row // G], (new_keys, new_values), strict=True)
            )
            expected = torch.nn.functional.scaled_dot_product_attention(query[row].float(), keys, values)
            tolerance = {"atol": 1e-6, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 0.02, "rtol": 0.02}
            torch.testing.assert_close(output[row, 0], expected[:, 0].to(dtype), **tolerance)


def test_autocast_with_keys_in_float32():
    """Under autocast the cache of a model with float32 weights is in float32; its scores are not rounded."""
    torch.manual_seed(0)
    caches = [DynamicCache()]
    caches[0].update(torch.randn(1, K, 50, D).bfloat16().float(), torch.randn(1, K, 50, D).bfloat16(), 0)
    prefix = (caches[0].layers[0].keys.float(), caches[0].layers[0].values.float())
    cache = share_prefixes(caches)
    new = (torch.randn(2, K, 1, D).bfloat16().float(), torch.randn(2, K, 1, D).bfloat16())
    query = 20 * torch.randn(2, H, 1, D).bfloat16().float()
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = shared_cache_attention(None, query, *cache.update(*new, 0), None, scaling=1.0)
    for row in range(2):
        keys, values = (
            torch.cat([old[0], each[row].float()], 1).repeat_interleave(H // K, 0)
            for old, each in zip(prefix, new, strict=True)
        )
        expected = torch.nn.functional.scaled_dot_product_attention(query[row], keys, values, scale=1.0)
        torch.testing.assert_close(output[row, 0].float(), expected[:, 0], atol=1e-5, rtol=1e-5)


def test_a_prompt_is_read_once_for_its_completions():
    """Count the bytes that matrix products read for one token of each of 8 completions of 2 prompts."""
    G, P = 8, 400
    cache = share_prefixes([cache_of(P), cache_of(P)])
    states = cache.update(torch.randn(2 * G, K, 1, D), torch.randn(2 * G, K, 1, D), 0)
    read = 0

    class Products(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal read
            if "bmm" in str(function):
                read += args[1].numel()
            return function(*args, **(kwargs or {}))

    with Products():
        shared_cache_attention(None, torch.randn(2 * G, H, 1, D), *states, None)
    assert read == 2 * K * D * (2 * P + 2 * G)  # keys and values; a copy per completion would be 2 * G * P
