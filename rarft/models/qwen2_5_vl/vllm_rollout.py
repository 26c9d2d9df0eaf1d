"""Rollouts by a colocated vLLM engine, with the same frames, text and positions as in training.

The engine receives the decoded and resized frames with their times, and encodes them with the same processor, once
for all completions of a prompt. Tested with a fake engine, not with vLLM itself, which needs a GPU.
"""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from rarft.models.qwen2_5_vl.prompt_encoder import video_metadata
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs


def engine_prompt(prompt: PromptInputs, video_token_id: int) -> dict[str, Any]:
    """Return a prompt in vLLM's form: the video as one placeholder token, with its frames as multi-modal data."""
    if prompt.frames is None:
        raise ValueError("the prompt has no frames; create its encoder with keep_frames=True")
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
    """Sample completions of each prompt.

    Args:
        engine: `vllm.LLM`.
        prompts: B prompts with their frames.
        video_token_id: Id of the placeholder token.
        sampling: `vllm.SamplingParams` with `n` completions per prompt and log-probabilities of the sampled tokens.

    Returns:
        B * n lists of token ids, grouped by prompt, and the log-probability of each token.
    """
    requests = [engine_prompt(prompt, video_token_id) for prompt in prompts]
    outputs = engine.generate(requests, sampling_params=sampling, use_tqdm=False)
    completions: list[list[int]] = []
    logprobs: list[list[float]] = []
    for prompt, output in zip(prompts, outputs, strict=True):
        if list(output.prompt_token_ids) != prompt.input_ids_L.tolist():
            raise RuntimeError(
                f"vLLM tokenized the prompt to {len(output.prompt_token_ids)} tokens, training to "
                f"{prompt.input_ids_L.numel()}; use the versions of the vLLM image, or omit --use_vllm"
            )
        for sample in output.outputs:
            steps = zip(sample.token_ids, sample.logprobs, strict=True)
            completions.append(list(sample.token_ids))
            logprobs.append([step[token].logprob for token, step in steps])
    return completions, logprobs
