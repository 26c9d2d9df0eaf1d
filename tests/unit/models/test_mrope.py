"""Reference values of the original M-RoPE convention: text after a video resumes at 1 + the maximum of all axes."""

import pytest
import torch

from rarft.models.qwen2_5_vl.mrope import prompt_positions, video_positions

VIDEO = 9


def positions(text_before, grid, seconds_per_grid, text_after):
    ids = torch.tensor([1] * text_before + [VIDEO] * (grid[0] * grid[1] * grid[2]) + [1] * text_after)
    return prompt_positions(ids, VIDEO, [grid], [seconds_per_grid], tokens_per_second=2)


def test_text_resumes_after_the_time_axis():
    # A grid of 35 x 14 x 26 patches, merged to 35 x 7 x 13; the last time step is floor(34 * 1.004 * 2) = 68.
    P = positions(5, (35, 7, 13), 1.004, 4)
    assert P[:, :5].tolist() == [[0, 1, 2, 3, 4]] * 3
    video = P[:, 5:-4]
    assert video.shape == (3, 3185)
    assert video.amin(1).tolist() == [5, 5, 5]
    assert video.amax(1).tolist() == [5 + 68, 5 + 6, 5 + 12]
    assert P[:, -4:].tolist() == [[74, 75, 76, 77]] * 3


def test_text_resumes_after_the_width_of_a_short_video():
    P = positions(1, (2, 2, 5), 0.5, 2)
    assert P[:, -2:].tolist() == [[6, 7]] * 3


def test_order_of_grid_positions():
    assert video_positions(10, (2, 2, 2), 1.5, 2).tolist() == [
        [10, 10, 10, 10, 13, 13, 13, 13],
        [10, 10, 11, 11, 10, 10, 11, 11],
        [10, 11, 10, 11, 10, 11, 10, 11],
    ]


def test_two_videos():
    ids = torch.tensor([1, VIDEO, VIDEO, 1, VIDEO, 1])
    P = prompt_positions(ids, VIDEO, [(2, 1, 1), (1, 1, 1)], [2.0, 1.0], 2)
    assert P[0].tolist() == [0, 1, 5, 6, 7, 8]


@pytest.mark.parametrize(("placeholders", "grids"), [(3, [(2, 1, 1)]), (1, [(2, 1, 1)]), (0, [(2, 1, 1)])])
def test_placeholders_and_grids_differ(placeholders, grids):
    ids = torch.tensor([1] + [VIDEO] * placeholders + [1])
    with pytest.raises(ValueError, match=r"placeholders|grids"):
        prompt_positions(ids, VIDEO, grids, [1.0], 2)


def test_encoded_prompts(prompts):
    for prompt in prompts:
        T, H, W = prompt.grid_thw_13[0].tolist()
        video = prompt.position_ids_3L[:, : prompt.position_ids_3L[0].argmax() + 1]
        assert (prompt.input_ids_L == prompt.input_ids_L.mode().values).sum() == T * H * W // 4
        assert video[:, -1].unique().numel() == 1  # the prompt ends in text
