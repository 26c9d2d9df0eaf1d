"""Model inputs of one prompt with its video."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rarft.video.decode import Frames


@dataclass(frozen=True)
class PromptInputs:
    """Model inputs of one prompt with its video: L tokens, N patches of D values.

    Attributes:
        input_ids_L: Token ids, video placeholders expanded.
        position_ids_3L: M-RoPE positions.
        video_ND: Normalized patches, or their features from a frozen vision tower.
        grid_thw_13: Grid of patches before merging, of shape (1, 3).
        frames: Frames of the video on the CPU, if the encoder keeps them.
    """

    input_ids_L: Tensor
    position_ids_3L: Tensor
    video_ND: Tensor
    grid_thw_13: Tensor
    frames: "Frames | None" = None

    def to(self, device: torch.device | str) -> "PromptInputs":
        """Return a copy with the tensors on another device."""
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **tensors)
