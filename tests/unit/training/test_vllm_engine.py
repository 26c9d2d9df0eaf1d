import os
from types import SimpleNamespace

import pytest
import torch

from rarft.models.qwen2_5_vl.prompt_size import PromptSize, max_video_tokens
from rarft.models.qwen2_5_vl.vllm_rollout import engine_options, one_gpu
from rarft.training.vllm_engine import ColocatedEngine, SamplingGuard
from rarft.video.sampling import PATCH, FrameSampling, frame_size
from rarft.video.timeline import sample_count


def guard(**settings):
    plain = {
        "top_p": 1.0, "top_k": 0, "min_p": None, "repetition_penalty": 1.0, "generation_kwargs": None,
        "vllm_structured_outputs_regex": None,
    }  # fmt: skip
    return SamplingGuard(SimpleNamespace(**plain | settings))


def test_guard_stops_after_ten_generations(caplog):
    checked = guard()
    for _ in range(9):
        checked.check(0.2)
    assert caplog.text.count("differ from the model's by 0.200") == 1
    with pytest.raises(RuntimeError, match=r"by 0\.200 .* does not run the weights"):
        checked.check(0.2)


@pytest.mark.parametrize(("difference", "settings"), [(0.019, {}), (5.0, {"top_p": 0.9})])
def test_guard_accepts(caplog, difference, settings):
    checked = guard(**settings)
    for _ in range(20):
        checked.check(difference)
    assert not caplog.text


@pytest.mark.parametrize("size", [(56, 56), (112, 112), (720, 1280), (1280, 720), (100, 400)])
@pytest.mark.parametrize("seconds", [0.5, 3.0, 21.0, 150.0, 1000.0])
@pytest.mark.parametrize("sampling", [FrameSampling(), FrameSampling(1.0, 200_704, 3136)])
def test_bound_of_video_tokens(size, seconds, sampling):
    frames = sample_count(max(2, int(25 * seconds)), 25.0, sampling.fps)
    height, width = frame_size(*size, frames, sampling)
    assert frames // 2 * (height // PATCH) * (width // PATCH) <= max_video_tokens(seconds, sampling)


def test_engine_options_fit_the_largest_prompt():
    options = engine_options(PromptSize(16_000, 100, 64), torch.bfloat16, 32_768)
    pixels = options["mm_processor_kwargs"]["size"]["longest_edge"]
    assert 16_000 <= 7 * pixels // PATCH**2 <= options["max_model_len"] - 164 < 16_200
    assert options["dtype"] == "bfloat16"
    assert engine_options(PromptSize(16_000, 100, 64), torch.float32, 16_164)["max_model_len"] == 16_164


@pytest.mark.parametrize(("visible", "rank", "expected"), [("4,5", "1", "5"), ("3", "0", "3")])
def test_rank_uses_one_gpu(monkeypatch, visible, rank, expected):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("LOCAL_RANK", rank)
    with one_gpu():
        assert os.environ["CUDA_VISIBLE_DEVICES"] == expected
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible


def test_sleeping_engine_gets_weights_before_each_generation():
    """With sleep mode the weights are discarded after a generation, so also a second one in a step needs them."""
    calls = []
    engine = SimpleNamespace(reset_encoder_cache=lambda: calls.append("reset"))
    generation = SimpleNamespace(
        enable_sleep_mode=True, _llm_weights_sleeping=True, sync_weights=lambda: calls.append("sync"),
        llm=SimpleNamespace(llm_engine=engine),
    )  # fmt: skip
    colocated = ColocatedEngine(generation, {}, 0)
    colocated.sync(0)
    colocated.sync(0)
    generation._llm_weights_sleeping = False
    colocated.sync(0)
    colocated.sync(1)
    assert calls == ["sync", "reset"] * 3
