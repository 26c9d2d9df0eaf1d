"""Features of a frozen vision tower, computed once per prompt and step and reused by every forward pass.

Under `fix_vit` the tower's blocks are frozen, so their output is the same in rollout, reference and policy. The merger
behind them may be trained, and runs in every pass.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_window_index

from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.rollout import unwrap_model

MERGER = "merger."


def is_frozen(model: Any) -> bool:
    """Check whether all of the vision tower except its merger is frozen."""
    parameters = unwrap_model(model).model.visual.named_parameters()
    return not any(parameter.requires_grad for name, parameter in parameters if not name.startswith(MERGER))


def enable_cached_features(model: Any) -> None:
    """Make the model accept features as well as patches; it distinguishes them by their width."""
    visual = unwrap_model(model).model.visual
    config, stock = visual.config, visual.forward
    patch = config.in_channels * config.temporal_patch_size * config.patch_size**2
    if patch == config.hidden_size:
        raise ValueError(f"features and patches of the vision tower are both {patch} wide and cannot be distinguished")

    def forward(hidden_states: Tensor, grid_thw: Tensor, **kwargs: Any) -> Any:
        if hidden_states.shape[-1] == patch:
            return stock(hidden_states, grid_thw, **kwargs)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=visual.merger(hidden_states))

    visual.forward = forward


@torch.no_grad()
def encode_video(model: Any, prompt: PromptInputs) -> PromptInputs:
    """Return the prompt with the tower's features, before the merger, instead of patches.

    The features (N, D) are in the order of the prompt's video tokens, the patches of one token next to each other. The
    tower itself reorders them by windows.
    """
    visual = unwrap_model(model).model.visual
    config = visual.config
    out_ND = visual(prompt.video_ND.to(visual.dtype), prompt.grid_thw_13).last_hidden_state
    window_index, _ = get_vision_window_index(
        prompt.grid_thw_13,
        spatial_merge_size=config.spatial_merge_size,
        window_size=config.window_size,
        patch_size=config.patch_size,
        kwargs={},
    )
    units = out_ND.view(window_index.numel(), -1, out_ND.shape[-1])
    return replace(prompt, video_ND=units[torch.argsort(window_index)].flatten(0, 1))
