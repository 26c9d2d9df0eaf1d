"""Features of a frozen vision tower, computed once for each prompt and step and read by every pass.

The tower's blocks do not train under `fix_vit`, so their output is the same for rollout, reference and policy;
the merger behind them may train, and runs in every pass.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.vision_utils import get_vision_window_index

from rarft.models.qwen2_5_vl.prompt_encoder import PromptInputs
from rarft.models.qwen2_5_vl.rollout import base_model

MERGER = "merger."


def is_frozen(model: Any) -> bool:
    """Whether everything of the vision tower but its merger is frozen."""
    parameters = base_model(model).model.visual.named_parameters()
    return not any(parameter.requires_grad for name, parameter in parameters if not name.startswith(MERGER))


def enable_cached_features(model: Any) -> None:
    """Let the model take features in the place of patches, told apart by their width; patches go on working.

    Raises:
        ValueError: features would be as wide as patches.
    """
    visual = base_model(model).model.visual
    config, stock = visual.config, visual.forward
    patch = config.in_channels * config.temporal_patch_size * config.patch_size**2
    if patch == config.hidden_size:
        raise ValueError(
            f"features of the vision tower are {patch} wide, as its patches are: they cannot be told apart"
        )

    def forward(hidden_states: Tensor, grid_thw: Tensor, **kwargs: Any) -> Any:
        if hidden_states.shape[-1] == patch:
            return stock(hidden_states, grid_thw, **kwargs)
        return BaseModelOutputWithPooling(last_hidden_state=hidden_states, pooler_output=visual.merger(hidden_states))

    visual.forward = forward


@torch.no_grad()
def encode_video(model: Any, prompt: PromptInputs) -> PromptInputs:
    """The prompt with the tower's features, before the merger, in the place of its patches.

    Features (N, D) stand in the order of the prompt's video tokens, the patches of a token side by side; the
    tower itself works on windows.
    """
    visual = base_model(model).model.visual
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
