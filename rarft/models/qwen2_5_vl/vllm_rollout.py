"""Completions by vLLM, with the same frames, text and positions as in training.

The engine receives the decoded and resized frames with their times, and encodes them with the same processor, once
for all completions of a prompt.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch

from rarft.models.qwen2_5_vl.prompt_encoder import video_metadata
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.prompt_size import PromptSize
from rarft.video.sampling import PATCH

# vLLM reserves memory for a video of 14 frames, so 7 time steps, of the processor's largest image.
_PROFILED_STEPS = 7
_STEP_MULTIPLE = 16  # tokens; vLLM looks for two factors that give a moderate aspect ratio


def engine_options(size: PromptSize, dtype: torch.dtype, limit: int) -> dict[str, Any]:
    """Return arguments of `vllm.LLM` that reserve memory for the largest prompt of a run, and not for more.

    `limit` is the largest number of tokens of a prompt with its completion.
    """
    step = -(-size.video // (_PROFILED_STEPS * _STEP_MULTIPLE)) * _STEP_MULTIPLE
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": min(_PROFILED_STEPS * step + size.text + size.completion, limit),
        "limit_mm_per_prompt": {"image": 0, "video": 1},
        "mm_processor_kwargs": {"size": {"shortest_edge": PATCH * PATCH, "longest_edge": step * PATCH * PATCH}},
        "enforce_eager": not torch.cuda.is_available(),  # compilation takes longer than a small model's whole run
    }


@contextmanager
def one_gpu() -> Iterator[None]:
    """Show engines that are created within only the GPU of this process of torchrun."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    devices = visible.split(",") if visible else [str(index) for index in range(torch.cuda.device_count())]
    if devices:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices[local_rank % len(devices)]
    try:
        yield
    finally:
        if visible is not None:
            os.environ["CUDA_VISIBLE_DEVICES"] = visible
        else:
            os.environ.pop("CUDA_VISIBLE_DEVICES", None)


def processor_options(prompt: PromptInputs) -> dict[str, Any]:
    """Return the arguments of vLLM's processor for frames that are sampled and resized already."""
    if prompt.frames is None:
        raise ValueError("the prompt has no frames; create its encoder with keep_frames=True")
    return {"do_resize": False, "do_sample_frames": False, "video_metadata": [video_metadata(prompt.frames)]}


def engine_prompt(prompt: PromptInputs, video_token_id: int) -> dict[str, Any]:
    """Return a prompt in vLLM's form: the video as one placeholder token, with its frames as multi-modal data."""
    options = processor_options(prompt)
    ids: list[int] = []
    for token, run in groupby(prompt.input_ids_L.tolist()):
        ids += [token] if token == video_token_id else list(run)
    return {
        "prompt_token_ids": ids,
        "multi_modal_data": {"video": prompt.frames.pixels_TCHW.permute(0, 2, 3, 1).numpy()},  # type: ignore[union-attr]
        "mm_processor_kwargs": options,
    }


def check_prompt(prompt: PromptInputs, token_ids: Sequence[int]) -> None:
    """Check that vLLM read a prompt as training does.

    Raises:
        RuntimeError: It has other tokens.
    """
    if list(token_ids) != prompt.input_ids_L.tolist():
        raise RuntimeError(
            f"vLLM tokenized the prompt to {len(token_ids)} tokens, training to {prompt.input_ids_L.numel()}; "
            "use the versions of the vLLM image, and the files that training saved with the checkpoint"
        )


def read_outputs(prompts: Sequence[PromptInputs], outputs: Sequence[Any]) -> tuple[list[list[int]], list[list[float]]]:
    """Return the token ids of all completions, grouped by prompt, and the log-probability of each token.

    Args:
        prompts: B prompts.
        outputs: `vllm.RequestOutput` of each, with log-probabilities of the sampled tokens.
    """
    completions: list[list[int]] = []
    logprobs: list[list[float]] = []
    for prompt, output in zip(prompts, outputs, strict=True):
        check_prompt(prompt, output.prompt_token_ids)
        for sample in output.outputs:
            steps = zip(sample.token_ids, sample.logprobs, strict=True)
            completions.append(list(sample.token_ids))
            logprobs.append([step[token].logprob for token, step in steps])
    return completions, logprobs
