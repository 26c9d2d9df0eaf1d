"""Padded batches with one full row [prompt | completion] per completion; nothing is shared."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs

IGNORE_INDEX = -100  # label of a token without a loss


def continued_positions(prompt: PromptInputs, length: int) -> Tensor:
    """Return the positions of `length` text tokens after the prompt, of shape (3, length)."""
    steps = torch.arange(1, length + 1, device=prompt.position_ids_3L.device)
    return prompt.position_ids_3L[:, -1:] + steps


def per_completion_batch(
    rows: Sequence[tuple[PromptInputs, Tensor]], pad_token_id: int
) -> tuple[dict[str, Any], Tensor]:
    """Build rows [prompt | completion], padded on the right, each with its own copy of the video.

    Args:
        rows: B prompts, each with the token ids of one completion, of shape (C_i,).
        pad_token_id: Id of the padding token.

    Returns:
        Arguments of the model's forward pass for B rows of L tokens, and labels of shape (B, L): the tokens of
        completions at their positions, `IGNORE_INDEX` elsewhere.
    """
    device = rows[0][0].input_ids_L.device
    lengths = [prompt.input_ids_L.numel() + completion.numel() for prompt, completion in rows]
    B, L = len(rows), max(lengths)
    input_ids_BL = torch.full((B, L), pad_token_id, device=device)
    labels_BL = torch.full((B, L), IGNORE_INDEX, device=device)
    attention_mask_BL = torch.zeros((B, L), dtype=torch.long, device=device)
    position_ids_3BL = torch.zeros((3, B, L), dtype=torch.long, device=device)
    for row, (prompt, completion) in enumerate(rows):
        P, end = prompt.input_ids_L.numel(), lengths[row]
        input_ids_BL[row, :end] = torch.cat([prompt.input_ids_L, completion])
        labels_BL[row, P:end] = completion
        attention_mask_BL[row, :end] = 1
        position_ids_3BL[:, row, :P] = prompt.position_ids_3L
        position_ids_3BL[:, row, P:end] = continued_positions(prompt, end - P)
    model_inputs = {
        "input_ids": input_ids_BL,
        "attention_mask": attention_mask_BL,
        "position_ids": position_ids_3BL,
        "pixel_values_videos": torch.cat([prompt.video_ND for prompt, _ in rows]),
        "video_grid_thw": torch.cat([prompt.grid_thw_13 for prompt, _ in rows]),
    }
    return model_inputs, labels_BL
