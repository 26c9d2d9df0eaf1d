"""M-RoPE positions of Qwen2.5-VL in the convention that its weights were trained with.

A text token has the same position on the three axes (time, height, width). A video's tokens start at the position s
after the preceding text: token (t, h, w) of the merged grid gets
(s + floor(t * second_per_grid * tokens_per_second), s + h, s + w). The text that follows resumes at 1 + the maximum
of all previous positions on all axes (Qwen2.5-VL technical report, section 2.1.2, and its published code).
transformers from 5.3 on resumes at s + max(h, w), so that text overlaps the video's time axis. Positions are therefore
always passed explicitly, in training, rollout and evaluation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def video_positions(start: int, grid_thw: Sequence[int], second_per_grid: float, tokens_per_second: float) -> Tensor:
    """Return the positions of one video's tokens, int64 of shape (3, T*H*W).

    Args:
        start: Position of the first token on all three axes.
        grid_thw: Grid after spatial merging (T, H, W).
        second_per_grid: Seconds between two steps of the time axis.
        tokens_per_second: Positions per second, from the vision configuration.
    """
    T, H, W = grid_thw
    # float32 and this order of multiplication, as in the code that the weights were trained with.
    time = (torch.arange(T, dtype=torch.float32) * second_per_grid * tokens_per_second).long()
    axes = torch.meshgrid(time, torch.arange(H), torch.arange(W), indexing="ij")
    return torch.stack(axes).reshape(3, -1) + start


def prompt_positions(
    input_ids_L: Tensor,
    video_token_id: int,
    grids_thw: Sequence[Sequence[int]],
    seconds_per_grid: Sequence[float],
    tokens_per_second: float,
) -> Tensor:
    """Return the positions of a prompt with any number of videos, int64 of shape (3, L).

    Args:
        input_ids_L: Token ids of the prompt, video placeholders expanded, no padding.
        video_token_id: Id of the placeholder token.
        grids_thw: Grid of each video after spatial merging, in order of appearance.
        seconds_per_grid: Seconds between two time steps of each video.
        tokens_per_second: Positions per second, from the vision configuration.

    Raises:
        ValueError: The placeholders and the grids do not match.
    """
    is_video = (input_ids_L == video_token_id).tolist()
    pieces: list[Tensor] = []
    next_position = 0
    index = 0
    videos = iter(zip(grids_thw, seconds_per_grid, strict=True))
    while index < len(is_video):
        if is_video[index]:
            grid, seconds = next(videos, (None, None))
            if grid is None or seconds is None:
                raise ValueError(f"token {index}: more video placeholders than the {len(grids_thw)} grids have")
            length = grid[0] * grid[1] * grid[2]
            if not all(is_video[index : index + length]) or index + length > len(is_video):
                raise ValueError(f"token {index}: fewer video placeholders than the grid {tuple(grid)} has")
            piece = video_positions(next_position, grid, seconds, tokens_per_second)
        else:
            length = [*is_video[index:], True].index(True)
            piece = (next_position + torch.arange(length)).expand(3, -1)
        pieces.append(piece)
        next_position = int(piece.max()) + 1
        index += length
    if next(videos, None) is not None:
        raise ValueError("more grids than videos in the prompt")
    return torch.cat(pieces, dim=1)
