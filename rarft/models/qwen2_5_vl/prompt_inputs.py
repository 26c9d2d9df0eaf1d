"""Model inputs of one prompt with its video."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rarft.video.decode import Frames


@dataclass(frozen=True)
class PromptInputs:
    """Model inputs of one prompt with its video: L tokens, N patches of D values."""

    input_ids_L: Tensor  # video placeholders are expanded
    position_ids_3L: Tensor  # M-RoPE
    video_ND: Tensor  # normalized patches, or their features from a frozen vision tower
    grid_thw_13: Tensor  # grid of patches before merging
    frames: "Frames | None" = None  # on the CPU, if the encoder keeps them
    messages: "list[dict[str, Any]] | None" = None  # the conversation, with its frames

    def to(self, device: torch.device | str) -> "PromptInputs":
        """Return a copy with the tensors on another device."""
        tensors = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors)
