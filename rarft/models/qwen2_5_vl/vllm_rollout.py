"""Rollouts by a colocated vLLM engine: the same frames, the same text and the same positions as in training.

The engine gets the frames as they were decoded and resized, and what it needs to know of their times; it lays
them out with the same processor, once for all completions of a prompt. This has run against an engine that
speaks vLLM's protocol, never against vLLM itself, which needs a GPU.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rarft.models.qwen2_5_vl.prompt_encoder import PromptInputs
from rarft.video.decode import Frames


def video_metadata(frames: Frames) -> dict[str, Any]:
    """What the processor has to know of a video's times."""
    return {"fps": frames.file_fps, "frames_indices": frames.indices, "total_num_frames": frames.file_frames}


def engine_prompt(prompt: PromptInputs, video_token_id: int) -> dict[str, Any]:
    """The prompt in vLLM's form: the video is one placeholder token, its frames travel beside it.

    Raises:
        ValueError: the prompt was encoded without keeping its frames.
    """
    if prompt.frames is None:
        raise ValueError("the prompt has no frames: its encoder must keep them")
    ids: list[int] = []
    for token, run in groupby(prompt.input_ids_L.tolist()):
        ids += [token] if token == video_token_id else list(run)
    return {
        "prompt_token_ids": ids,
        "multi_modal_data": {"video": prompt.frames.pixels_TCHW.permute(0, 2, 3, 1).numpy()},
        "mm_processor_kwargs": {
            "do_resize": False,
            "do_sample_frames": False,
            "video_metadata": [video_metadata(prompt.frames)],
        },
    }


def generate_with_vllm(
    engine: Any, prompts: Sequence[PromptInputs], video_token_id: int, sampling: Any
) -> tuple[list[list[int]], list[list[float]]]:
    """Draw completions of each prompt.

    Args:
        engine: a `vllm.LLM`.
        prompts: B prompts that keep their frames.
        video_token_id: of the placeholder.
        sampling: `vllm.SamplingParams` with `n` completions a prompt and log-probabilities of what is sampled.

    Returns:
        B * n lists of token ids, a prompt's completions side by side, and the log-probability of each token.

    Raises:
        RuntimeError: the engine laid a prompt out otherwise than training does.
    """
    requests = [engine_prompt(prompt, video_token_id) for prompt in prompts]
    outputs = engine.generate(requests, sampling_params=sampling, use_tqdm=False)
    completions: list[list[int]] = []
    logprobs: list[list[float]] = []
    for prompt, output in zip(prompts, outputs, strict=True):
        if list(output.prompt_token_ids) != prompt.input_ids_L.tolist():
            raise RuntimeError(
                f"vLLM laid a prompt out in {len(output.prompt_token_ids)} tokens, training in "
                f"{prompt.input_ids_L.numel()}: use the versions of the vLLM image, or leave --use_vllm out"
            )
        for sample in output.outputs:
            completions.append(list(sample.token_ids))
            logprobs.append(
                [step[token].logprob for token, step in zip(sample.token_ids, sample.logprobs, strict=True)]
            )
    return completions, logprobs
