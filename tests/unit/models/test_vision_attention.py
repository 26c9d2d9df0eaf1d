"""Attention of the vision tower in batches of segments, compared with transformers' own."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from rarft.models.qwen2_5_vl.vision_attention import BATCHED, VARLEN, enable_segment_attention

PATCH = 3 * 2 * 14 * 14


@pytest.fixture(scope="module")
def model():
    """Return a model with the vision tower of Qwen2.5-VL 7B in depth and windows, but narrow."""
    torch.manual_seed(0)
    vision = {
        "depth": 32, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
        "fullatt_block_indexes": [7, 15, 23, 31],
    }  # fmt: skip
    text = {
        "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        "num_key_value_heads": 1, "vocab_size": 8, "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
    }  # fmt: skip
    tokens = dict.fromkeys(("bos_token_id", "eos_token_id"))
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text | tokens, vision_config=vision))


class AttentionCalls(TorchDispatchMode):
    """Count the calls of attention kernels."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.count += "scaled_dot_product" in str(function)
        return function(*args, **(kwargs or {}))


def run(model, grids):
    """Return features, gradients, and the number of attention calls of the forward pass."""
    grid_thw = torch.tensor(grids)
    patches = torch.randn((int(grid_thw.prod(1).sum()), PATCH), generator=torch.Generator().manual_seed(1))
    model.zero_grad()
    with AttentionCalls() as calls:
        output = model.model.visual(patches, grid_thw).last_hidden_state
    output.square().sum().backward()
    gradients = {name: p.grad.clone() for name, p in model.model.visual.named_parameters() if p.grad is not None}
    return output.detach(), gradients, calls.count


def check_equal(model, grids, allow_varlen=True):
    model.set_attn_implementation({"vision_config": "sdpa"})
    features, gradients, stock_calls = run(model, grids)
    enable_segment_attention(model, allow_varlen)
    batched_features, batched_gradients, calls = run(model, grids)
    torch.testing.assert_close(batched_features, features)
    assert batched_gradients.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(batched_gradients[name], gradient, atol=1e-6, rtol=1e-4)
    return stock_calls, calls


@pytest.mark.parametrize(
    "grids",
    [[[1, 8, 8]], [[3, 10, 14]], [[2, 2, 30]], [[3, 10, 14], [1, 2, 2], [2, 6, 8]]],
    ids=["one window", "remainders", "one row of windows", "three videos"],
)
def test_batched_equals_stock_attention(model, grids):
    check_equal(model, grids)
    assert model.config.vision_config._attn_implementation == BATCHED


def test_calls_at_9000_tokens(model):
    """The stock tower makes one call per window and layer: 22,600."""
    grid_thw = torch.tensor([[50, 26, 28]])
    enable_segment_attention(model)
    with torch.no_grad(), AttentionCalls() as calls:
        model.model.visual(torch.zeros((int(grid_thw.prod()), PATCH)), grid_thw)
    assert calls.count == 4 + 28 * 4


def test_varlen_kernel_gets_the_segments(model, monkeypatch):
    """Run the path for GPUs with an implementation of the kernel for CPUs."""

    calls = [0, 0]  # of full layers, with one segment per time step of a video, and of windowed layers

    def varlen_attn(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k):
        calls[len(cu_seq_q) > 6] += 1
        assert (query.dtype, cu_seq_q.dtype) == (torch.bfloat16, torch.int32)
        assert max_q == max_k == int(cu_seq_q.diff().max())
        outputs = []
        for start, end in zip(cu_seq_q[:-1].tolist(), cu_seq_q[1:].tolist(), strict=True):
            heads = (states[start:end].float().transpose(0, 1) for states in (query, key, value))
            outputs.append(torch.nn.functional.scaled_dot_product_attention(*heads).transpose(0, 1))
        return torch.cat(outputs).to(query.dtype)

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    monkeypatch.setattr("rarft.models.qwen2_5_vl.vision_attention.has_varlen_kernel", lambda: True)
    grids = [[3, 10, 14], [2, 6, 8]]
    model.set_attn_implementation({"vision_config": "sdpa"})
    features, _, _ = run(model, grids)
    enable_segment_attention(model)
    assert model.config.vision_config._attn_implementation == VARLEN
    in_float32, _, _ = run(model, grids)
    torch.testing.assert_close(in_float32, features)
    with torch.autocast("cpu", torch.bfloat16):
        in_half_precision, gradients, _ = run(model, grids)
    assert calls == [4, 28]
    torch.testing.assert_close(in_half_precision.float(), features, atol=0.1, rtol=0.1)
    assert gradients
    enable_segment_attention(model, allow_varlen=False)
    assert model.config.vision_config._attn_implementation == BATCHED
