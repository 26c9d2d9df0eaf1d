"""Rollouts by vLLM, with a protocol fake, because vLLM needs a GPU."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest
from transformers import GenerationConfig

from helpers.fake_vllm import FakeEngine, SamplingParams
from helpers.training import train
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt
from rarft.models.qwen2_5_vl.rollout import generate
from rarft.models.qwen2_5_vl.vllm_rollout import engine_prompt, generate_with_vllm


@pytest.fixture
def encoder(tiny):
    model, processor = tiny
    return PromptEncoder(processor, model.config, PromptConfig.load("tiny").sampling, keep_frames=True)


@pytest.fixture
def prompts(encoder, sample_set):
    videos = sorted((sample_set / "videos").glob("train_*.mp4"))[:2]
    return [encoder.encode(video_prompt("", "Find: a red ring slides", str(video))) for video in videos]


def test_engine_and_training_read_the_same_prompt(tiny, prompts):
    model, processor = tiny
    engine = FakeEngine(model, processor)
    sampling = SamplingParams(n=2, max_tokens=12)
    completions, logprobs = generate_with_vllm(engine, prompts, model.config.video_token_id, sampling)
    greedy = GenerationConfig(
        max_new_tokens=12, do_sample=False, eos_token_id=processor.tokenizer.eos_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )  # fmt: skip
    assert completions == generate(model, prompts, 2, greedy)
    assert [len(row) for row in logprobs] == [len(row) for row in completions]
    placeholders = [request["prompt_token_ids"].count(model.config.video_token_id) for request in engine.requests]
    assert placeholders == [1, 1]


def test_engine_with_different_tokenization(tiny, prompts):
    model, processor = tiny
    engine = FakeEngine(model, processor)
    original = engine.generate
    engine.generate = lambda requests, **options: original(
        [
            {**request, "mm_processor_kwargs": {**request["mm_processor_kwargs"], "do_resize": True}}
            for request in requests
        ],
        **options,
    )
    with pytest.raises(RuntimeError, match="vLLM tokenized the prompt to"):
        generate_with_vllm(engine, prompts, model.config.video_token_id, SamplingParams(n=1, max_tokens=2))


def test_prompt_without_frames(tiny, sample_set):
    model, processor = tiny
    encoder = PromptEncoder(processor, model.config, PromptConfig.load("tiny").sampling)
    video = next((sample_set / "videos").glob("train_*.mp4"))
    with pytest.raises(ValueError, match="keep_frames=True"):
        engine_prompt(encoder.encode(video_prompt("", "x", str(video))), model.config.video_token_id)


def test_training_with_engine(validated, tmp_path, tiny, monkeypatch):
    from trl.trainer import grpo_trainer

    from rarft.training import preflight

    synced, engines = [], []

    class FakeGeneration:
        def __init__(self, model, **_):
            self.llm = FakeEngine(model, tiny[1])
            engines.append(self.llm)

        def sync_weights(self):
            synced.append(1)

    vllm = ModuleType("vllm")
    vllm.SamplingParams = SamplingParams
    vllm.__spec__ = ModuleSpec("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    monkeypatch.setattr(grpo_trainer, "VLLMGeneration", FakeGeneration)
    assert preflight.importlib.util.find_spec("vllm")
    _, entries = train(validated, tmp_path, "--max_steps", "2", "--use_vllm", "true")
    assert len(synced) == 2
    assert len(engines[0].requests) == 4  # two prompts per step, not two times four
    assert len([entry for entry in entries if "reward" in entry]) == 2


@pytest.mark.parametrize("flags", [["--vllm_mode", "server"], ["--vllm_tensor_parallel_size", "2"]])
def test_unsupported_vllm_settings(main, validated, monkeypatch, flags):
    vllm = ModuleType("vllm")
    vllm.__spec__ = ModuleSpec("vllm", None)
    monkeypatch.setitem(sys.modules, "vllm", vllm)
    code, _, error = main(
        "train", "--preset", "tiny", "--train_data_path", str(validated), "--use_vllm", "true", *flags
    )
    assert code == 2
    assert "supports only colocated mode with one engine per GPU" in error
