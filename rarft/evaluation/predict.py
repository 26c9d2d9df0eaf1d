"""Predictions of a checkpoint: greedy completions on the same prompt, frames and positions as in training."""

from typing import Any

import msgspec
import torch
from transformers import AutoConfig, GenerationConfig

from rarft.progress import progress
from rarft.qwen.inputs import PromptEncoder, video_prompt
from rarft.qwen.loading import checkpoint_path, load_model, load_processor
from rarft.qwen.reading import ReadingSettings
from rarft.qwen.rollout import generate
from rarft.response import fill_prompt
from rarft.riq.schema import Sample


class Prediction(msgspec.Struct, frozen=True):
    """What a checkpoint said to one query; `rewards` are the terms that training would have given it."""

    sample: Sample
    completion: str
    rewards: dict[str, float] = {}


class Predictor:
    """A loaded checkpoint that answers samples."""

    def __init__(self, checkpoint: str, reading: ReadingSettings, what: str = "--checkpoint") -> None:
        """
        Args:
            checkpoint: a folder, a hub name, or a packaged model.
            reading: how it reads prompts.
            what: the flag that named it, for messages.

        Raises:
            InputError: it cannot be loaded.
        """
        on_gpu = torch.cuda.is_available()
        self._device = torch.device("cuda" if on_gpu else "cpu")
        dtype = torch.bfloat16 if on_gpu else torch.float32
        self._model: Any = load_model(checkpoint, what, dtype).to(self._device).eval()
        self._processor = load_processor(checkpoint, what)
        config = AutoConfig.from_pretrained(checkpoint_path(checkpoint))
        self._encoder = PromptEncoder(self._processor, config, reading.sampling)
        self._reading = reading
        tokenizer = self._processor.tokenizer
        ends = {
            "eos_token_id": self._model.generation_config.eos_token_id or tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        # What is left open below would be filled from here: a checkpoint's own repetition penalty is not greedy.
        self._model.generation_config = GenerationConfig(**ends)
        self._generation = GenerationConfig(max_new_tokens=reading.max_completion_length, do_sample=False, **ends)

    def complete(self, samples: list[Sample]) -> list[str]:
        """One completion per sample, in one batch."""
        prompts = [
            self._encoder.encode(
                video_prompt(
                    fill_prompt(self._reading.prompt, sample.query, sample.duration, sample.crop),
                    sample.video,
                    sample.crop,
                )
            ).to(self._device)
            for sample in samples
        ]
        ids = generate(self._model, prompts, 1, self._generation)
        return self._processor.tokenizer.batch_decode(ids, skip_special_tokens=True)

    def predict(self, samples: list[Sample], batch_size: int, what: str) -> list[Prediction]:
        """Predictions in the order of the samples, with a progress line."""
        batches = [samples[start : start + batch_size] for start in range(0, len(samples), batch_size)]
        return [
            Prediction(sample, completion)
            for batch in progress(batches, what, unit=" batches")
            for sample, completion in zip(batch, self.complete(batch), strict=True)
        ]
