"""Greedy completions of a checkpoint, with the same prompt, frames and positions as in training.

Samples are grouped by video. Each video is decoded and encoded once for all of its queries.
"""

import functools
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

import torch
from transformers import AutoConfig, GenerationConfig
from transformers.utils import cached_file

from rarft.annotations.schema import Sample
from rarft.checkpoint.source import checkpoint_path
from rarft.completion import parse_completion
from rarft.errors import InputError
from rarft.evaluation.endpoint import EndpointBackend
from rarft.evaluation.predictions import Prediction
from rarft.evaluation.refusal_score import RefusalScorer
from rarft.models.qwen2_5_vl.load import load_model, load_processor
from rarft.models.qwen2_5_vl.per_completion import per_completion_batch
from rarft.models.qwen2_5_vl.prompt_check import check_prompts
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.prompt_size import PromptSize, largest_prompt
from rarft.models.qwen2_5_vl.rollout import generate, vision_token_ids
from rarft.models.qwen2_5_vl.vision_features import enable_cached_features, encode_video
from rarft.models.qwen2_5_vl.vllm_rollout import engine_options, engine_prompt, one_gpu, read_outputs
from rarft.prompts import fill_prompt
from rarft.storage.hashing import hash_text
from rarft.video.decode import read_frames
from rarft.video.reader import VideoError

_MAX_CACHED_VIDEOS = 2  # decoded videos, and vision features, kept for their next queries


class Backend(Protocol):
    """Greedy generation from encoded prompts."""

    keeps_frames: bool

    def __init__(self, checkpoint: str, generation: dict[str, Any], size: Callable[[int], PromptSize]) -> None:
        """
        Args:
            checkpoint: Folder, Hub name, or packaged model.
            generation: End and padding tokens, and `max_new_tokens`.
            size: Function that returns the size of the largest prompt, given the most tokens that a prompt may have.
        """

    def generate(self, prompts: Sequence[tuple[str, PromptInputs]]) -> list[list[int]]:
        """Return the token ids of one completion per prompt; prompts come as (video name, inputs)."""

    def sample(self, prompts: Sequence[tuple[str, PromptInputs]], count: int, seed: int) -> list[list[int]]:
        """Return the token ids of `count` completions per prompt, sampled at temperature 1, grouped by prompt."""

    def next_logprobs(
        self, prompts: Sequence[tuple[str, PromptInputs]], prefixes: Sequence[list[int]], token_ids: list[int]
    ) -> list[list[float] | None]:
        """Return the log-probabilities of next tokens after each prompt with its prefix; None if not available."""


class TransformersBackend:
    """Generation with transformers, on a GPU if there is one."""

    keeps_frames = False

    def __init__(self, checkpoint: str, generation: dict[str, Any], size: Callable[[int], PromptSize]) -> None:
        on_gpu = torch.cuda.is_available()
        # One GPU per process of torchrun.
        self._device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if on_gpu else torch.device("cpu")
        dtype = torch.bfloat16 if on_gpu else torch.float32
        self._model: Any = load_model(checkpoint, dtype).to(self._device).eval()
        enable_cached_features(self._model)
        ends = {name: generation[name] for name in ("eos_token_id", "pad_token_id")}
        # Unset options would be taken from the checkpoint's own configuration, such as a repetition penalty.
        self._model.generation_config = GenerationConfig(**ends)
        self._generation = GenerationConfig(do_sample=False, **generation)
        self._sampling = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, **generation)
        self._features: dict[str, torch.Tensor] = {}

    def _with_features(self, video: str, prompt: PromptInputs) -> PromptInputs:
        prompt = prompt.to(self._device)
        if video not in self._features:
            while len(self._features) >= _MAX_CACHED_VIDEOS:
                del self._features[next(iter(self._features))]
            self._features[video] = encode_video(self._model, prompt).video_ND
        return replace(prompt, video_ND=self._features[video])

    def generate(self, prompts: Sequence[tuple[str, PromptInputs]]) -> list[list[int]]:
        """Return the token ids of one completion per prompt, all in one batch."""
        ready = [self._with_features(video, prompt) for video, prompt in prompts]
        completions: list[list[int]] = generate(self._model, ready, 1, self._generation)
        return completions

    def sample(self, prompts: Sequence[tuple[str, PromptInputs]], count: int, seed: int) -> list[list[int]]:
        """Return the token ids of `count` sampled completions per prompt, all in one batch."""
        ready = [self._with_features(video, prompt) for video, prompt in prompts]
        torch.manual_seed(seed)
        completions: list[list[int]] = generate(self._model, ready, count, self._sampling)
        return completions

    def next_logprobs(
        self, prompts: Sequence[tuple[str, PromptInputs]], prefixes: Sequence[list[int]], token_ids: list[int]
    ) -> list[list[float] | None]:
        """Return the log-probabilities of next tokens, from one forward pass per prompt."""
        found: list[list[float] | None] = []
        for (video, prompt), prefix in zip(prompts, prefixes, strict=True):
            row = (self._with_features(video, prompt), torch.tensor(prefix, dtype=torch.long, device=self._device))
            model_inputs, _ = per_completion_batch([row], 0)
            with torch.no_grad():
                logits_V = self._model(**model_inputs, logits_to_keep=1).logits[0, -1]
            found.append(logits_V.float().log_softmax(-1)[token_ids].tolist())
        return found


class VllmBackend:
    """Generation with vLLM, on one GPU per process of torchrun."""

    keeps_frames = True

    def __init__(self, checkpoint: str, generation: dict[str, Any], size: Callable[[int], PromptSize]) -> None:
        try:
            from vllm import LLM, SamplingParams
        except ImportError as error:
            raise InputError("backend vllm: vllm is not installed; install rarft[vllm] or use transformers") from error
        path = checkpoint_path(checkpoint)
        config = AutoConfig.from_pretrained(path)
        self._video_token_id: int = config.video_token_id
        limit = config.text_config.max_position_embeddings
        dtype = torch.bfloat16 if torch.cuda.is_available() else torch.float32
        with one_gpu():
            self._engine = LLM(model=path, **engine_options(size(limit), dtype, limit))
        self._sampling = functools.partial(
            SamplingParams,
            max_tokens=generation["max_new_tokens"],
            stop_token_ids=_as_list(generation["eos_token_id"]),
            logprobs=0,
            logit_bias=dict.fromkeys(vision_token_ids(config), -100.0),
        )
        self._next_token = functools.partial(SamplingParams, max_tokens=1, temperature=0.0)

    def generate(self, prompts: Sequence[tuple[str, PromptInputs]]) -> list[list[int]]:
        """Return the token ids of one completion per prompt; the engine caches videos."""
        return self._generate(prompts, temperature=0.0)

    def sample(self, prompts: Sequence[tuple[str, PromptInputs]], count: int, seed: int) -> list[list[int]]:
        """Return the token ids of `count` sampled completions per prompt."""
        return self._generate(prompts, temperature=1.0, n=count, seed=seed)

    def _generate(self, prompts: Sequence[tuple[str, PromptInputs]], **sampling: Any) -> list[list[int]]:
        requests = [engine_prompt(prompt, self._video_token_id) for _, prompt in prompts]
        outputs = self._engine.generate(requests, sampling_params=self._sampling(**sampling), use_tqdm=False)
        return read_outputs([prompt for _, prompt in prompts], outputs)[0]

    def next_logprobs(
        self, prompts: Sequence[tuple[str, PromptInputs]], prefixes: Sequence[list[int]], token_ids: list[int]
    ) -> list[list[float] | None]:
        """Return the log-probabilities of next tokens; the engine caches the prompts of the completions."""
        requests = []
        for (_, prompt), prefix in zip(prompts, prefixes, strict=True):
            request = engine_prompt(prompt, self._video_token_id)
            requests.append({**request, "prompt_token_ids": [*request["prompt_token_ids"], *prefix]})
        sampling = self._next_token(logprob_token_ids=token_ids)
        outputs = self._engine.generate(requests, sampling_params=sampling, use_tqdm=False)
        steps = [output.outputs[0].logprobs[0] for output in outputs]
        return [[step[token].logprob for token in token_ids] for step in steps]


def _as_list(ids: int | list[int]) -> list[int]:
    return ids if isinstance(ids, list) else [ids]


BACKENDS: dict[str, type[Backend]] = {
    "transformers": TransformersBackend,
    "vllm": VllmBackend,
}


class Predictor:
    """A loaded checkpoint that completes samples."""

    def __init__(
        self,
        checkpoint: str,
        prompt_config: PromptConfig,
        backend: str = "transformers",
        samples: Sequence[Sample] = (),
        endpoint: str | None = None,
    ) -> None:
        """
        Args:
            checkpoint: Folder, Hub name, or packaged model.
            prompt_config: How prompts are read.
            backend: Key of BACKENDS.
            samples: Data; the prompts of the first samples are checked before the model is loaded.
            endpoint: URL of a server that serves the checkpoint; it replaces the backend.

        Raises:
            InputError: The checkpoint or the backend cannot be loaded, or the chat template does not render the query
                and the video.
        """
        processor = load_processor(checkpoint)
        self._tokenizer = processor.tokenizer
        self._scorer = RefusalScorer(self._tokenizer)
        path = checkpoint_path(checkpoint)
        has_defaults = cached_file(path, "generation_config.json", _raise_exceptions_for_missing_entries=False)
        eos = GenerationConfig.from_pretrained(path).eos_token_id if has_defaults else None
        generation = {
            "eos_token_id": eos or self._tokenizer.eos_token_id,
            "pad_token_id": self._tokenizer.pad_token_id,
            "max_new_tokens": prompt_config.max_completion_length,
        }
        read = functools.lru_cache(maxsize=_MAX_CACHED_VIDEOS)(read_frames)
        config = AutoConfig.from_pretrained(path)
        keeps_frames = endpoint is not None or BACKENDS[backend].keeps_frames
        self._encoder = PromptEncoder(processor, config, prompt_config.sampling, read, keeps_frames)
        self._prompt = prompt_config.prompt
        check_prompts(samples, self._encoder, self._prompt, checkpoint)
        self._unreadable: dict[str, str] = {}  # why, by name of the video
        self._backend: Backend | EndpointBackend
        if endpoint is not None:
            self._backend = EndpointBackend(
                endpoint, {**generation, "suppressed": vision_token_ids(config)}, self._tokenizer.decode
            )
            return

        def size(limit: int) -> PromptSize:
            return largest_prompt(samples, self._encoder, self._prompt, prompt_config.max_completion_length, limit)

        self._backend = BACKENDS[backend](checkpoint, generation, size)

    def _encode(self, sample: Sample) -> tuple[str, PromptInputs] | str:
        """Return the prompt of a sample, or why its video cannot be read."""
        name = _video_name(sample)
        if name not in self._unreadable:
            texts = fill_prompt(self._prompt, sample.query, sample.duration, sample.crop)
            try:
                return name, self._encoder.encode(video_prompt(*texts, sample.video, sample.crop))
            except VideoError as error:
                self._unreadable[name] = str(error)
        return self._unreadable[name]

    def predict(self, samples: Sequence[Sample], with_score: bool = False, num_samples: int = 0) -> list[Prediction]:
        """Return one prediction per sample, all in one batch; those whose video cannot be read are skipped.

        Args:
            samples: Samples to complete.
            with_score: Whether predictions have a refusal score.
            num_samples: Number of sampled completions per sample that the share of refusals is computed from.
        """
        encoded = [self._encode(sample) for sample in samples]
        prompts = [prompt for prompt in encoded if not isinstance(prompt, str)]
        ids = self._backend.generate(prompts) if prompts else []
        scores: list[float | None] = [None] * len(prompts)
        if with_score:
            scores = self._scorer.scores(prompts, ids, self._backend.next_logprobs)
        shares: list[float | None] = [None] * len(prompts)
        if num_samples and prompts:
            seed = int(hash_text(" ".join(sample.id for sample in samples))[:8], 16)
            shares = self._shares(self._backend.sample(prompts, num_samples, seed), num_samples)
        found = zip(self._decode(ids), scores, shares, strict=True)
        rows = []
        for sample, prompt in zip(samples, encoded, strict=True):
            if isinstance(prompt, str):
                rows.append(Prediction(sample, "", skipped=prompt))
            else:
                completion, score, share = next(found)
                rows.append(Prediction(sample, completion, refusal_score=score, refusal_share=share))
        return rows

    def _decode(self, ids: list[list[int]]) -> list[str]:
        return list(self._tokenizer.batch_decode(ids, skip_special_tokens=True))

    def _shares(self, ids: list[list[int]], count: int) -> list[float | None]:
        """Return the share of refusals among the readable ones of each `count` completions; None without any."""
        parsed = [parse_completion(text) for text in self._decode(ids)]
        shares: list[float | None] = []
        for start in range(0, len(parsed), count):
            readable = [one.refuses for one in parsed[start : start + count] if one.is_readable]
            shares.append(sum(readable) / len(readable) if readable else None)
        return shares


def _video_name(sample: Sample) -> str:
    """Return the name that samples with the same frames share."""
    return f"{sample.video} {sample.crop}"


def in_batches(samples: Sequence[Sample], size: int) -> list[list[int]]:
    """Return batches of sample indices, grouped by video, in the order in which the videos occur."""
    first: dict[str, int] = {}
    for index, sample in enumerate(samples):
        first.setdefault(_video_name(sample), index)
    order = sorted(range(len(samples)), key=lambda index: (first[_video_name(samples[index])], index))
    return [order[start : start + size] for start in range(0, len(order), size)]
