"""Packed rows compared with rows per completion, and generation after one prefill with full forward passes."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import GenerationConfig
from trl.trainer.utils import add_fused_lm_head

from rarft.models.qwen2_5_vl.logprobs import limit_lm_head_to_completions, per_completion_logps, shared_prefix_logps
from rarft.models.qwen2_5_vl.per_completion import per_completion_batch
from rarft.models.qwen2_5_vl.rollout import generate, vision_token_ids
from rarft.models.qwen2_5_vl.shared_prefix import enable_shared_prefix
from rarft.models.qwen2_5_vl.vision_features import enable_cached_features, encode_video
from rarft.training.model import lora_targets


def scored_model(tiny, temperature=1.0):
    scored = copy.deepcopy(tiny[0])
    add_fused_lm_head(scored, temperature=temperature, outputs=("log_probs", "entropy"))
    enable_shared_prefix(scored)
    limit_lm_head_to_completions(scored)
    return scored


@pytest.fixture
def model(tiny):
    return scored_model(tiny)


@pytest.fixture(params=[[7], [1, 7, 3, 5]], ids=["one completion", "ragged"])
def completions(request, tiny):
    generator = torch.Generator().manual_seed(0)
    lengths = request.param
    ids_GC = torch.randint(0, 300, (len(lengths), max(lengths)), generator=generator)
    mask_GC = (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()
    return ids_GC.masked_fill(mask_GC == 0, tiny[1].tokenizer.pad_token_id), mask_GC


def test_logps_and_entropies(model, tiny, prompts, completions):
    ids_GC, mask_GC = completions
    for prompt in prompts:
        with torch.no_grad():
            logps, entropies = shared_prefix_logps(model, prompt, ids_GC, mask_GC, with_entropy=True)
            expected, expected_entropies = per_completion_logps(
                model, prompt, ids_GC, mask_GC, tiny[1].tokenizer.pad_token_id, with_entropy=True
            )
        torch.testing.assert_close(logps, expected, atol=1e-5, rtol=0)
        torch.testing.assert_close(entropies, expected_entropies, atol=1e-5, rtol=0)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logps_equal_plain_forward(tiny, prompts, completions, temperature):
    """Compare with the logits of the unpatched model, row by row, without padding."""
    model = scored_model(tiny, temperature)
    ids_GC, mask_GC = completions
    prompt = prompts[0]
    P = prompt.input_ids_L.numel()
    with torch.no_grad():
        logps, entropies = shared_prefix_logps(model, prompt, ids_GC, mask_GC, with_entropy=True)
        for row, (ids, mask) in enumerate(zip(ids_GC, mask_GC, strict=True)):
            completion = ids[mask.bool()]
            model_inputs, _ = per_completion_batch([(prompt, completion)], 0)
            del model_inputs["attention_mask"]
            log_softmax = (tiny[0](**model_inputs).logits[0, P - 1 : -1] / temperature).log_softmax(-1)
            expected = log_softmax.gather(-1, completion[:, None])[:, 0]
            torch.testing.assert_close(logps[row, : len(completion)], expected, atol=1e-5, rtol=0)
            expected_entropies = -(log_softmax.exp() * log_softmax).sum(-1)
            torch.testing.assert_close(entropies[row, : len(completion)], expected_entropies, atol=1e-5, rtol=0)


def lora(model):
    """Add LoRA adapters to the language model, with random instead of zero weights."""
    config = LoraConfig(r=4, target_modules=lora_targets(["q_proj", "k_proj", "v_proj", "o_proj"]))
    adapted = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.02, generator=generator)
    return adapted


def frozen_vision(model):
    for name, parameter in model.model.visual.named_parameters():
        parameter.requires_grad = name.startswith("merger.")
    return model


def checkpointed(model):
    model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


VARIANTS = {
    "full": lambda model: model,
    "frozen vision": frozen_vision,
    "LoRA": lora,
    "checkpointing": checkpointed,
    "LoRA, checkpointing": lambda model: lora(checkpointed(model)),
    "frozen vision, checkpointing": lambda model: frozen_vision(checkpointed(model)),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_loss_and_gradients(model, tiny, prompts, completions, variant):
    """Compare a clipped GRPO loss of two groups, with ratios around one."""
    policy = VARIANTS[variant](model)
    ids_GC, mask_GC = completions
    pad = tiny[1].tokenizer.pad_token_id
    generator = torch.Generator().manual_seed(1)
    advantages_G1 = torch.randn((len(ids_GC), 1), generator=generator)
    noise_GC = 0.3 * torch.randn(ids_GC.shape, generator=generator)

    def loss_and_gradients(logps_of):
        policy.zero_grad()
        total = 0.0
        for prompt in prompts[:2]:
            logps_GC = logps_of(prompt)
            ratios_GC = torch.exp(logps_GC - logps_GC.detach() + noise_GC)
            clipped_GC = torch.min(ratios_GC * advantages_G1, ratios_GC.clamp(0.8, 1.2) * advantages_G1)
            total = total - (clipped_GC * mask_GC).sum() / mask_GC.sum()
        total.backward()
        return total.item(), {
            name: tensor.grad.clone() for name, tensor in policy.named_parameters() if tensor.grad is not None
        }

    if "frozen" in variant:  # as in a training step
        enable_cached_features(policy)
        featured = {id(prompt): encode_video(policy, prompt) for prompt in prompts}
    else:
        featured = {id(prompt): prompt for prompt in prompts}
    shared_loss, shared = loss_and_gradients(
        lambda prompt: shared_prefix_logps(policy, featured[id(prompt)], ids_GC, mask_GC)[0]
    )
    plain_loss, plain = loss_and_gradients(
        lambda prompt: per_completion_logps(policy, prompt, ids_GC, mask_GC, pad)[0]
    )
    assert shared_loss == pytest.approx(plain_loss, abs=1e-5)
    assert shared.keys() == plain.keys() != set()
    assert any("visual" in name for name in shared) == ("LoRA" not in variant)
    assert all("merger" in name for name in shared if "visual" in name) == (variant not in ("full", "checkpointing"))
    for name, gradient in plain.items():
        torch.testing.assert_close(shared[name], gradient, atol=1e-5 * gradient.abs().max().item() + 1e-7, rtol=1e-4)


def test_ordinary_forward_is_unchanged(model, tiny, prompts):
    model_inputs, _ = per_completion_batch([(prompt, torch.tensor([5, 6, 7])) for prompt in prompts], 0)
    with torch.no_grad():
        torch.testing.assert_close(model(**model_inputs).logits, tiny[0](**model_inputs).logits)


def greedy_by_full_forwards(model, prompt, steps, end):
    """Decode greedily without a cache, with a full forward pass per token."""
    ids: list[int] = []
    with torch.no_grad():
        while len(ids) < steps:
            completion = torch.tensor(ids, dtype=torch.long)
            model_inputs, _ = per_completion_batch([(prompt, completion)], 0)
            logits = model(**model_inputs).logits[0, -1]
            logits[vision_token_ids(model.config)] = -torch.inf
            ids.append(int(logits.argmax()))
            if ids[-1] == end:
                break
    return ids


@pytest.mark.parametrize("num_generations", [1, 3])
def test_generation_equals_full_forwards(tiny, prompts, num_generations):
    model, processor = tiny
    end, pad = processor.tokenizer.eos_token_id, processor.tokenizer.pad_token_id
    config = GenerationConfig(max_new_tokens=48, do_sample=False, eos_token_id=end, pad_token_id=pad)
    found = generate(model, prompts, num_generations, config)
    expected = [greedy_by_full_forwards(model, prompt, 48, end) for prompt in prompts]
    assert found == [ids for ids in expected for _ in range(num_generations)]
    assert model.model.rope_deltas is None


def test_vision_tokens_are_not_sampled(tiny, prompts):
    model, processor = copy.deepcopy(tiny[0]), tiny[1]
    with torch.no_grad():  # make the placeholders the most likely tokens for any hidden state
        bias = torch.zeros(model.config.text_config.vocab_size)
        bias[vision_token_ids(model.config)] = 1e4
        model.lm_head.register_forward_hook(lambda _module, _inputs, logits: logits + bias)
    config = GenerationConfig(max_new_tokens=8, do_sample=True, eos_token_id=processor.tokenizer.eos_token_id,
                              pad_token_id=processor.tokenizer.pad_token_id)  # fmt: skip
    sampled = {token for row in generate(model, prompts, 2, config) for token in row}
    assert not sampled & set(vision_token_ids(model.config))
