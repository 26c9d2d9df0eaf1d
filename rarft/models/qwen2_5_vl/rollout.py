"""Generation that prefills each prompt once for all of its completions.

The prompts without their last token are prefilled, and the stock `generate` continues with a cache in which the
completions of a prompt share its part.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.shared_cache import ATTENTION, share_prefixes

_CPU_MEMORY = 16 * 2**30


def unwrap_model(model: Any) -> Any:
    """Return the Qwen2.5-VL model inside the wrappers of PEFT, DDP and DeepSpeed."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def vision_token_ids(config: Any) -> list[int]:
    """Return the placeholder tokens, which must not be sampled: the next forward pass would look for their frames."""
    return [config.video_token_id, config.image_token_id]


def prompts_per_rollout(model: Any, prompt_tokens: int, completion_tokens: int) -> int:
    """Return for how many prompts, at least one, the key-value cache fits into a tenth of the memory.

    `prompt_tokens` is the length of the longest prompt, `completion_tokens` that of all completions of a prompt.
    """
    core = unwrap_model(model)
    config = core.config.text_config
    head_size = config.hidden_size // config.num_attention_heads
    token = 2 * config.num_hidden_layers * config.num_key_value_heads * head_size * core.dtype.itemsize
    memory = torch.cuda.get_device_properties(core.device).total_memory if core.device.type == "cuda" else _CPU_MEMORY
    return max(1, memory // 10 // (token * (prompt_tokens + completion_tokens)))


def _cut_after_end(ids: list[int], end_ids: frozenset[int]) -> list[int]:
    end = next((index for index, token in enumerate(ids) if token in end_ids), None)
    return ids if end is None else ids[: end + 1]


def _left_padded(prompts: Sequence[PromptInputs], pad_token_id: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return token ids (B, L), mask (B, L) and positions (3, B, L) of prompts, padded on the left."""
    device = prompts[0].input_ids_L.device
    B, L = len(prompts), max(prompt.input_ids_L.numel() for prompt in prompts)
    input_ids_BL = torch.full((B, L), pad_token_id, device=device)
    mask_BL = torch.zeros((B, L), dtype=torch.long, device=device)
    position_ids_3BL = torch.zeros((3, B, L), dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        start = L - prompt.input_ids_L.numel()
        input_ids_BL[row, start:] = prompt.input_ids_L
        mask_BL[row, start:] = 1
        position_ids_3BL[:, row, start:] = prompt.position_ids_3L
    return input_ids_BL, mask_BL, position_ids_3BL


@torch.no_grad()
def generate(
    model: Any, prompts: Sequence[PromptInputs], num_generations: int, generation_config: GenerationConfig
) -> list[list[int]]:
    """Sample `num_generations` completions of each prompt.

    Args:
        model: Qwen2.5-VL for conditional generation, possibly wrapped by PEFT.
        prompts: B prompts. Their videos may differ in length.
        num_generations: G, the number of completions per prompt.
        generation_config: Sampling, end and padding tokens, and length. Vision tokens are always suppressed.

    Returns:
        B * G lists of token ids, grouped by prompt, each cut after its end token.
    """
    core = unwrap_model(model)
    config = GenerationConfig(**generation_config.to_diff_dict())
    config.suppress_tokens = sorted({*(config.suppress_tokens or []), *vision_token_ids(core.config)})
    input_ids_BL, mask_BL, position_ids_3BL = _left_padded(prompts, config.pad_token_id)
    L = input_ids_BL.shape[1]
    # One prompt at a time has no padding, so that fused kernels apply without a mask.
    caches = [
        model(
            input_ids=prompt.input_ids_L[None, :-1],
            position_ids=prompt.position_ids_3L[:, None, :-1],
            pixel_values_videos=prompt.video_ND,
            video_grid_thw=prompt.grid_thw_13,
            use_cache=True,
            logits_to_keep=1,
        ).past_key_values
        for prompt in prompts
    ]
    # `generate` continues counting tokens from the cache and adds `rope_deltas` to the count to get a position.
    offsets_B1 = position_ids_3BL[:, :, -1].amax(0)[:, None] + 1 - mask_BL.sum(1, keepdim=True)
    core.model.rope_deltas = offsets_B1.repeat_interleave(num_generations, 0)
    implementation = core.config.text_config._attn_implementation
    core.set_attn_implementation({"text_config": ATTENTION})
    try:
        sequences = model.generate(
            input_ids=input_ids_BL.repeat_interleave(num_generations, 0),
            attention_mask=mask_BL.repeat_interleave(num_generations, 0),
            past_key_values=share_prefixes(caches),
            generation_config=config,
        )
    finally:
        core.model.rope_deltas = None
        core.set_attn_implementation({"text_config": implementation})
    end_ids = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return [_cut_after_end(row, frozenset(end_ids)) for row in sequences[:, L:].tolist()]
