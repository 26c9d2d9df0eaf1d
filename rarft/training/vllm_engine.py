"""Rollouts by the vLLM engine that TRL creates in the trainer's process ("colocated")."""

import functools
import logging
import os
import socket
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import PeftModel

from rarft.errors import InputError
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.rollout import vision_token_ids
from rarft.models.qwen2_5_vl.vllm_rollout import engine_prompt, read_outputs
from rarft.training.config import TrainingConfig

logger = logging.getLogger(__name__)

# Of the mean absolute difference between log-probabilities of the engine and the model.
_WARN_DIFFERENCE, _MAX_DIFFERENCE = 0.02, 0.1
_GENERATIONS = 10
_RESERVED = {"n", "max_tokens", "logprobs", "logit_bias"}


def rollout_dtype(args: TrainingConfig) -> torch.dtype:
    """Return the data type that the trainer computes in."""
    return torch.bfloat16 if args.bf16 else torch.float16 if args.fp16 else torch.float32


def sampling_options(args: TrainingConfig, model_config: Any) -> dict[str, Any]:
    """Return the arguments of `vllm.SamplingParams` of a run, except for the number of completions.

    Raises:
        InputError: vLLM does not accept the settings, or `--generation_kwargs` has those of other flags.
    """
    from vllm import SamplingParams
    from vllm.exceptions import VLLMValidationError
    from vllm.sampling_params import StructuredOutputsParams

    more = args.generation_kwargs or {}
    if reserved := sorted(_RESERVED & more.keys()):
        raise InputError(f"--generation_kwargs: {', '.join(reserved)} cannot be set with --use_vllm; remove them")
    options = {
        "temperature": args.temperature,
        "top_p": args.top_p,
        "top_k": args.top_k,
        "min_p": args.min_p or 0.0,
        "repetition_penalty": args.repetition_penalty,
        "max_tokens": args.max_completion_length,
        "logprobs": 0,  # only of the sampled tokens
        "logit_bias": dict.fromkeys(vision_token_ids(model_config), -100.0),
        **more,
    }
    if args.vllm_structured_outputs_regex is not None:
        options["structured_outputs"] = StructuredOutputsParams(regex=args.vllm_structured_outputs_regex)
    try:
        SamplingParams(**options)
    except (TypeError, ValueError, VLLMValidationError) as error:
        raise InputError(
            f"--use_vllm: vLLM does not accept the settings of sampling ({error}); change --temperature, --top_p, "
            "--top_k, --min_p, --repetition_penalty or --generation_kwargs"
        ) from error
    return options


@contextmanager
def engine_arguments(options: dict[str, Any]) -> Iterator[None]:
    """Let TRL create its engine with further arguments of `vllm.LLM`."""
    from trl.generation import vllm_generation

    # vLLM's sleep mode suspends expandable segments, which it looks for under the older name only.
    if "PYTORCH_ALLOC_CONF" in os.environ:
        os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", os.environ["PYTORCH_ALLOC_CONF"])
    if not torch.distributed.is_initialized():  # accelerate and TRL use one that other runs on the machine use, too
        with socket.socket() as free:
            free.bind(("", 0))
            os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    original = vllm_generation.LLM
    vllm_generation.LLM = functools.partial(original, **options)
    try:
        yield
    finally:
        vllm_generation.LLM = original


class ColocatedEngine:
    """The engine of a trainer.

    Args:
        generation: `trl.generation.VLLMGeneration`.
        options: Result of `sampling_options`.
        video_token_id: Id of the placeholder token.
    """

    def __init__(self, generation: Any, options: dict[str, Any], video_token_id: int) -> None:
        self._generation, self._options, self._video_token_id = generation, options, video_token_id
        self._synced_step: int | None = None

    def sync(self, step: int) -> None:
        """Give the engine the weights after a step, unless it has them."""
        generation = self._generation
        asleep = generation.enable_sleep_mode and generation._llm_weights_sleeping
        if step == self._synced_step and not asleep:
            return
        generation.sync_weights()
        # The engine keeps the features of videos that it has seen, which are those of the old weights.
        generation.llm.llm_engine.reset_encoder_cache()
        self._synced_step = step

    def generate(
        self, prompts: Sequence[PromptInputs], num_generations: int
    ) -> tuple[list[list[int]], list[list[float]]]:
        """Sample completions of this rank's prompts; see `read_outputs`.

        The ranks of a tensor-parallel engine generate all of its completions, each by its part of the weights.
        """
        from vllm import SamplingParams

        generation = self._generation
        requests = [engine_prompt(prompt, self._video_token_id) for prompt in prompts]
        first = 0
        if generation.tensor_parallel_size > 1:
            of_ranks: list[Any] = [None] * generation.tensor_parallel_size
            torch.distributed.all_gather_object(of_ranks, requests, group=generation.tp_group)
            first = len(requests) * torch.distributed.get_rank(generation.tp_group)
            requests = [request for of_rank in of_ranks for request in of_rank]
            if isinstance(generation.model, PeftModel):
                torch.distributed.barrier()  # small all-reduces of adapters must not overlap with the engine's
        if generation.enable_sleep_mode:
            generation.llm.wake_up(tags=["kv_cache"])
        sampling = SamplingParams(n=num_generations, **self._options)
        outputs = generation.llm.generate(requests, sampling_params=sampling, use_tqdm=False)
        if generation.enable_sleep_mode:
            generation.llm.sleep(level=2)  # discards the weights
            generation._llm_weights_sleeping = True
        return read_outputs(prompts, outputs[first : first + len(prompts)])


class SamplingGuard:
    """Checks that the engine samples from the model that is trained.

    Args:
        args: Settings. Nothing is checked if they change the probabilities of tokens other than by a temperature.
    """

    def __init__(self, args: TrainingConfig) -> None:
        self._recent: deque[float] = deque(maxlen=_GENERATIONS)
        self._count = 0
        self._is_active = (
            args.top_p == 1.0
            and args.top_k in (0, -1)
            and not args.min_p
            and args.repetition_penalty == 1.0
            and not args.generation_kwargs
            and args.vllm_structured_outputs_regex is None
        )

    def check(self, difference: float) -> None:
        """Check the mean absolute difference of log-probabilities, over all ranks, of one generation.

        Raises:
            RuntimeError: It is too large over the last ten generations. It is raised on every process.
        """
        if not self._is_active:
            return
        self._recent.append(difference)
        self._count += 1
        mean = sum(self._recent) / len(self._recent)
        problem = (
            f"vLLM's log-probabilities of sampled tokens differ from the model's by {mean:.3f} on average "
            f"(sampling/sampling_logp_difference/mean): it "
            "does not run the weights, frames or precision that are trained"
        )
        if mean > _MAX_DIFFERENCE and len(self._recent) == _GENERATIONS:
            raise RuntimeError(f"{problem}; use the pinned versions of vllm and trl, or train without --use_vllm")
        if mean > _WARN_DIFFERENCE and self._count % _GENERATIONS == 1:
            logger.warning("%s; above %g the run stops", problem, _MAX_DIFFERENCE)
