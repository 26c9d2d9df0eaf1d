"""Completions of a checkpoint: greedy, on the same prompt, frames and positions as in training.

Samples are taken video by video, and each video is decoded, and its vision features computed, once for all of its
queries.
"""

import os
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, Protocol

import torch
from transformers import AutoConfig, GenerationConfig

from rarft.annotations.schema import Sample
from rarft.checkpoint.locate import checkpoint_path
from rarft.errors import InputError, input_name
from rarft.models.qwen2_5_vl.load import load_model, load_processor
from rarft.models.qwen2_5_vl.prompt_check import check_prompts
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, PromptInputs, video_prompt
from rarft.models.qwen2_5_vl.rollout import generate, vision_token_ids
from rarft.models.qwen2_5_vl.vision_features import enable_cached_features, encode_video
from rarft.models.qwen2_5_vl.vllm_rollout import generate_with_vllm
from rarft.prompts import fill_prompt
from rarft.video.decode import read_frames

_VIDEOS_HELD = 2  # decoded videos, and features, that are kept for the queries to come


class Backend(Protocol):
    """Something that completes prompts greedily."""

    keeps_frames: bool

    def __init__(self, checkpoint: str, what: str, generation: dict[str, Any]) -> None: ...

    def complete(self, prompts: Sequence[tuple[str, PromptInputs]]) -> list[list[int]]:
        """Token ids of a completion for each prompt; beside it a name that prompts of the same video share."""


class TransformersBackend:
    """The model in this process, on the GPU where there is one.

    Attributes:
        videos_encoded: how often the vision tower has run.
    """

    keeps_frames = False

    def __init__(self, checkpoint: str, what: str, generation: dict[str, Any]) -> None:
        on_gpu = torch.cuda.is_available()
        # torchrun's processes take a GPU each.
        self._device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
        dtype = torch.bfloat16 if on_gpu else torch.float32
        with input_name(what):
            self._model: Any = load_model(checkpoint, dtype).to(self._device).eval()
        enable_cached_features(self._model)
        ends = {name: generation[name] for name in ("eos_token_id", "pad_token_id")}
        # What is left open below would be filled from here: a checkpoint's own repetition penalty is not greedy.
        self._model.generation_config = GenerationConfig(**ends)
        self._generation = GenerationConfig(do_sample=False, **generation)
        self._features: dict[str, torch.Tensor] = {}
        self.videos_encoded = 0

    def _with_features(self, video: str, prompt: PromptInputs) -> PromptInputs:
        prompt = prompt.to(self._device)
        if video not in self._features:
            while len(self._features) >= _VIDEOS_HELD:
                del self._features[next(iter(self._features))]
            self._features[video] = encode_video(self._model, prompt).video_ND
            self.videos_encoded += 1
        return replace(prompt, video_ND=self._features[video])

    def complete(self, prompts: Sequence[tuple[str, PromptInputs]]) -> list[list[int]]:
        """Token ids of a completion for each prompt, all in one batch."""
        ready = [self._with_features(video, prompt) for video, prompt in prompts]
        return generate(self._model, ready, 1, self._generation)


class VllmBackend:
    """A vLLM engine in this process. Run against an engine that speaks its protocol, never against vLLM itself."""

    keeps_frames = True

    def __init__(self, checkpoint: str, what: str, generation: dict[str, Any]) -> None:
        """
        Raises:
            InputError: vLLM is not installed.
        """
        try:
            from vllm import LLM, SamplingParams
        except ImportError as error:
            raise InputError("--backend vllm: vllm is not installed; leave the flag out") from error
        path = checkpoint_path(checkpoint)
        config = AutoConfig.from_pretrained(path)
        self._video_token_id: int = config.video_token_id
        self._engine = LLM(model=path, limit_mm_per_prompt={"video": 1})
        self._sampling = SamplingParams(
            n=1,
            temperature=0.0,
            max_tokens=generation["max_new_tokens"],
            logprobs=0,
            logit_bias=dict.fromkeys(vision_token_ids(config), -100.0),
        )

    def complete(self, prompts: Sequence[tuple[str, PromptInputs]]) -> list[list[int]]:
        """Token ids of a completion for each prompt; the engine knows a video that it has seen."""
        requests = [prompt for _, prompt in prompts]
        return generate_with_vllm(self._engine, requests, self._video_token_id, self._sampling)[0]


# What `--backend` takes.
BACKENDS: dict[str, type[Backend]] = {
    "transformers": TransformersBackend,
    "vllm": VllmBackend,
}


class Predictor:
    """A loaded checkpoint that answers samples.

    Attributes:
        backend: what completes.
    """

    def __init__(
        self,
        checkpoint: str,
        reading: PromptConfig,
        what: str = "--checkpoint",
        backend: str = "transformers",
        samples: Sequence[Sample] = (),
    ) -> None:
        """
        Args:
            checkpoint: a folder, a hub name, or a packaged model.
            reading: how it reads prompts.
            what: the flag that named it, for messages.
            backend: one of BACKENDS.
            samples: the data; prompts of the first are checked before the model is loaded.

        Raises:
            InputError: it cannot be loaded, or its chat template does not render a prompt's query and video.
        """
        with input_name(what):
            processor = load_processor(checkpoint)
        self._tokenizer = processor.tokenizer
        path = checkpoint_path(checkpoint)
        ends = GenerationConfig.from_pretrained(path).eos_token_id if _has_generation_config(path) else None
        generation = {
            "eos_token_id": ends or self._tokenizer.eos_token_id,
            "pad_token_id": self._tokenizer.pad_token_id,
            "max_new_tokens": reading.max_completion_length,
        }
        read = lru_cache(maxsize=_VIDEOS_HELD)(read_frames)
        config = AutoConfig.from_pretrained(path)
        self._encoder = PromptEncoder(processor, config, reading.sampling, read, BACKENDS[backend].keeps_frames)
        self._reading = reading
        with input_name(what):
            check_prompts(samples, self._encoder, reading.prompt, checkpoint)
        self.backend: Backend = BACKENDS[backend](checkpoint, what, generation)

    def _encode(self, sample: Sample) -> tuple[str, PromptInputs]:
        texts = fill_prompt(self._reading.prompt, sample.query, sample.duration, sample.crop)
        return video_name(sample), self._encoder.encode(video_prompt(*texts, sample.video, sample.crop))

    def complete(self, samples: Sequence[Sample]) -> list[str]:
        """One completion per sample, in one batch."""
        ids = self.backend.complete([self._encode(sample) for sample in samples])
        return list(self._tokenizer.batch_decode(ids, skip_special_tokens=True))


def _has_generation_config(path: str) -> bool:
    from transformers.utils import cached_file

    return cached_file(path, "generation_config.json", _raise_exceptions_for_missing_entries=False) is not None


def video_name(sample: Sample) -> str:
    """What samples share that show the same frames."""
    return f"{sample.video} {sample.crop}"


def in_batches(samples: Sequence[Sample], size: int) -> list[list[int]]:
    """Indices of the samples in batches, those of a video side by side, videos in the order of the data."""
    first: dict[str, int] = {}
    for index, sample in enumerate(samples):
        first.setdefault(video_name(sample), index)
    order = sorted(range(len(samples)), key=lambda index: (first[video_name(samples[index])], index))
    return [order[start : start + size] for start in range(0, len(order), size)]
