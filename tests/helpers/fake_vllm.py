"""An engine with vLLM's interface that generates greedily with transformers."""

from types import SimpleNamespace

import torch
from transformers import GenerationConfig

from rarft.models.qwen2_5_vl.mrope import prompt_positions
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.rollout import generate


class SamplingParams(SimpleNamespace):
    """Accepts the arguments of vLLM's class, as attributes."""


class FakeEngine:
    """Tokenizes requests with the checkpoint's processor, as vLLM does, and completes them greedily."""

    def __init__(self, model, processor):
        self.model, self.processor = model, processor
        self.requests = []

    def generate(self, requests, sampling_params, use_tqdm):
        self.requests += requests
        return [self._complete(request, sampling_params) for request in requests]

    def _complete(self, request, sampling):
        tokenizer, config = self.processor.tokenizer, self.model.config
        text = tokenizer.decode(request["prompt_token_ids"])
        frames = torch.from_numpy(request["multi_modal_data"]["video"]).permute(0, 3, 1, 2)
        inputs = self.processor(text=[text], videos=[frames], return_tensors="pt", **request["mm_processor_kwargs"])
        ids = inputs["input_ids"][0]
        T, H, W = inputs["video_grid_thw"][0].tolist()
        positions = prompt_positions(
            ids, config.video_token_id, [(T, H // 2, W // 2)], [float(inputs["second_per_grid_ts"][0])],
            config.vision_config.tokens_per_second,
        )  # fmt: skip
        prompt = PromptInputs(ids, positions, inputs["pixel_values_videos"], inputs["video_grid_thw"])
        greedy = GenerationConfig(
            max_new_tokens=sampling.max_tokens, do_sample=False, eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        rows = generate(self.model, [prompt], sampling.n, greedy)
        outputs = [
            SimpleNamespace(token_ids=row, logprobs=[{token: SimpleNamespace(logprob=-0.5)} for token in row])
            for row in rows
        ]
        return SimpleNamespace(prompt_token_ids=ids.tolist(), outputs=outputs)
