"""Generation that prefills each prompt once for all of its completions.

The prompts without their last token are prefilled, the cache is repeated for each completion, and the stock `generate`
continues from there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from rarft.models.qwen2_5_vl.prompt_encoder import PromptInputs


def unwrap_model(model: Any) -> Any:
    """Return the Qwen2.5-VL model inside the wrappers of PEFT, DDP and DeepSpeed."""
    while hasattr(model, "module"):
        model = model.module
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def vision_token_ids(config: Any) -> list[int]:
    """Return the placeholder tokens, which must not be sampled: the next forward pass would look for their frames."""
    return [config.video_token_id, config.image_token_id]


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
    prefill = model(
        input_ids=input_ids_BL[:, :-1],
        attention_mask=mask_BL[:, :-1],
        position_ids=position_ids_3BL[:, :, :-1],
        pixel_values_videos=torch.cat([prompt.video_ND for prompt in prompts]),
        video_grid_thw=torch.cat([prompt.grid_thw_13 for prompt in prompts]),
        use_cache=True,
        logits_to_keep=1,
    )
    cache = prefill.past_key_values
    if num_generations > 1:
        cache.batch_repeat_interleave(num_generations)
    # `generate` continues counting tokens from the cache and adds `rope_deltas` to the count to get a position.
    offsets_B1 = position_ids_3BL[:, :, -1].amax(0)[:, None] + 1 - mask_BL.sum(1, keepdim=True)
    core.model.rope_deltas = offsets_B1.repeat_interleave(num_generations, 0)
    try:
        sequences = model.generate(
            input_ids=input_ids_BL.repeat_interleave(num_generations, 0),
            attention_mask=mask_BL.repeat_interleave(num_generations, 0),
            past_key_values=cache,
            generation_config=config,
        )
    finally:
        core.model.rope_deltas = None
    end_ids = config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id]
    return [_cut_after_end(row, frozenset(end_ids)) for row in sequences[:, L:].tolist()]
