"""Speed and equality of the model's parts on a GPU: `python -m benchmarks.gpu`.

Requires torch and transformers, and no downloads. The model has the shape of Qwen2.5-VL-7B, random weights in bfloat16
and no optimizer. One table has, in this order:

- the attention kernels that ran;
- packed rows compared with one row per completion: forward and backward with gradient checkpointing, and the equality
  of log-probabilities and gradients; the features of the frozen vision tower are computed before, as in training;
- the rollout compared with the stock `generate`;
- the vision tower compared with the stock one;
- peak memory of each;
- the errors of bfloat16 against the same weights in float32.

On a CPU the model is small and in float32 (`--size small`, the default there).
"""

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import transformers
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint
from transformers import GenerationConfig, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from rarft.models.qwen2_5_vl.mrope import prompt_positions
from rarft.models.qwen2_5_vl.per_completion import IGNORE_INDEX, per_completion_batch
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.rollout import generate, vision_token_ids
from rarft.models.qwen2_5_vl.shared_prefix import enable_shared_prefix, pack
from rarft.models.qwen2_5_vl.vision_attention import enable_segment_attention
from rarft.models.qwen2_5_vl.vision_features import enable_cached_features, encode_video

VIDEO, PAD = 151_656, 151_643
GRID = (16, 24)  # patches of a frame
TOKENS_PER_STEP = GRID[0] * GRID[1] // 4
TEXT_TOKENS = 150
MAX_ROW_TOKENS = 40_000  # of the rows of completions in one forward
HEAD_CHUNK = 1024
ENOUGH_SECONDS = 5.0  # of measured calls
# Dense bfloat16 operations per second, from NVIDIA's data sheets.
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


@dataclass(frozen=True)
class Size:
    """Sizes of the model and of the measurements.

    Attributes:
        text: Configuration of the language model.
        vision: Configuration of the vision tower.
        videos: Numbers of video tokens.
        groups: Numbers of completions of a prompt.
        completion: Tokens of a completion.
        rollouts: Prompts and completions of each, for the rollout.
    """

    text: dict[str, Any]
    vision: dict[str, Any]
    videos: tuple[int, ...]
    groups: tuple[int, ...]
    completion: int
    rollouts: tuple[tuple[int, int], ...]


SIZES = {
    "7b": Size(
        text={
            "hidden_size": 3584, "num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4,
            "intermediate_size": 18944, "vocab_size": 152_064,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        vision={
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
        videos=(3000, 9000),
        groups=(4, 8, 16),
        completion=200,
        rollouts=((1, 8), (2, 8)),
    ),
    "small": Size(
        text={
            "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 64, "vocab_size": 152_064,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
        },
        vision={
            "depth": 4, "hidden_size": 32, "intermediate_size": 32, "num_heads": 2, "fullatt_block_indexes": [3],
        },
        videos=(300,),
        groups=(2, 4),
        completion=12,
        rollouts=((2, 3),),
    ),
}  # fmt: skip


def build_model(size: Size, device: str, dtype: torch.dtype) -> Any:
    """Return a model with random weights, its vision tower frozen, with the attention of training."""
    config = Qwen2_5_VLConfig(
        text_config={**size.text, "bos_token_id": None, "eos_token_id": PAD, "pad_token_id": PAD},
        vision_config={**size.vision, "out_hidden_size": size.text["hidden_size"], "tokens_per_second": 2},
        video_token_id=VIDEO, image_token_id=151_655, vision_start_token_id=151_652, vision_end_token_id=151_653,
        tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            model = Qwen2_5_VLForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(default)
    model.model.visual.requires_grad_(False)
    model.generation_config = GenerationConfig()
    enable_shared_prefix(model)
    enable_segment_attention(model)
    enable_cached_features(model)
    return model


def make_group(video_tokens: int, group: int, completion: int, model: Any) -> tuple[PromptInputs, Tensor]:
    """Return a prompt with a random video, and random completions (G, C)."""
    generator = torch.Generator().manual_seed(1)
    T, (H, W) = max(1, video_tokens // TOKENS_PER_STEP), GRID
    text = torch.randint(1000, 5000, (TEXT_TOKENS,), generator=generator)
    ids = torch.cat([text[:20], torch.full((T * TOKENS_PER_STEP,), VIDEO), text[20:]])
    positions = prompt_positions(ids, VIDEO, [(T, H // 2, W // 2)], [1.0], 2.0)
    pixels = torch.randn((T * H * W, 3 * 2 * 14 * 14), generator=generator).to(model.dtype)
    prompt = PromptInputs(ids, positions, pixels, torch.tensor([[T, H, W]])).to(model.device)
    return prompt, torch.randint(1000, 5000, (group, completion), generator=generator).to(model.device)


def token_logps(model: Any, hidden_LD: Tensor, labels_L: Tensor) -> Tensor:
    """Return the log-probabilities of labels (L,), with the logits of a chunk in memory at a time."""

    def score(hidden: Tensor, labels: Tensor) -> Tensor:
        return -torch.nn.functional.cross_entropy(model.lm_head(hidden).float(), labels, reduction="none")

    chunks = zip(hidden_LD.split(HEAD_CHUNK), labels_L.split(HEAD_CHUNK), strict=True)
    return torch.cat([checkpoint(score, hidden, labels, use_reentrant=False) for hidden, labels in chunks])


def packed_logps(model: Any, prompt: PromptInputs, completions_GC: Tensor) -> Iterator[Tensor]:
    """Yield the log-probabilities (G, C) of a group from one packed row."""
    inputs, labels_1L = pack(prompt, completions_GC, torch.ones_like(completions_GC))
    first = inputs.pop("scored_from")
    hidden_LD = model.model(**inputs, use_cache=False).last_hidden_state[0, first:]
    yield token_logps(model, hidden_LD, labels_1L[0]).view_as(completions_GC)


def row_logps(model: Any, prompt: PromptInputs, completions_GC: Tensor) -> Iterator[Tensor]:
    """Yield log-probabilities from ordinary rows, as many at a time as have `MAX_ROW_TOKENS`."""
    P, C = prompt.input_ids_L.numel(), completions_GC.shape[1]
    for completions in completions_GC.split(max(1, MAX_ROW_TOKENS // (P + C))):
        inputs, labels_BL = per_completion_batch([(prompt, completion) for completion in completions], PAD)
        hidden_BLD = model.model(**inputs, use_cache=False).last_hidden_state[:, P - 1 : -1]
        labels = labels_BL[:, P:]
        assert (labels != IGNORE_INDEX).all()
        yield token_logps(model, hidden_BLD.flatten(0, 1), labels.flatten()).view_as(completions)


Method = Callable[[Any, PromptInputs, Tensor], Iterator[Tensor]]


def forward_backward(method: Method, model: Any, prompt: PromptInputs, completions_GC: Tensor) -> Tensor:
    """Compute the gradients of a loss with a weight for each completion; return the log-probabilities (G, C)."""
    model.zero_grad(set_to_none=True)
    weights_G = torch.linspace(-1, 1, len(completions_GC), device=completions_GC.device)
    parts, start = [], 0
    for logps in method(model, prompt, completions_GC):
        weights = weights_G[start : start + len(logps), None]
        (-(logps * weights).mean() * len(logps) / len(completions_GC)).backward()
        parts.append(logps.detach())
        start += len(logps)
    return torch.cat(parts)


def synchronize() -> None:
    """Wait for the GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds(function: Callable[[], Any], repeats: int) -> tuple[float, str]:
    """Return the median time of a call in seconds, after one for warming up, and the peak memory.

    Long calls are measured less often than `repeats`.
    The time is NaN if the GPU has too little memory.
    """
    try:
        function()
        synchronize()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        times: list[float] = []
        while len(times) < repeats and sum(times) < ENOUGH_SECONDS:
            start = time.perf_counter()
            function()
            synchronize()
            times.append(time.perf_counter() - start)
    except torch.OutOfMemoryError:
        return float("nan"), "out of memory"
    peak = f"{torch.cuda.max_memory_allocated() / 1e9:.1f} GB" if torch.cuda.is_available() else ""
    return statistics.median(times), peak


def kernels(function: Callable[[], Any]) -> str:
    """Return the names of the attention kernels of a call; on a CPU of the operations."""
    on_gpu = torch.cuda.is_available()
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as profiler:
        function()
        synchronize()
    found = ("flash", "fmha") if on_gpu else ("aten::_scaled_dot_product",)
    names = {event.key.split("<")[0].split("(")[0] for event in profiler.key_averages()}
    return ", ".join(sorted(name for name in names if any(part in name for part in found)))


def model_flops(model: Any, tokens: int) -> float:
    """Return the operations of a forward and a backward pass of the language model, without attention."""
    layers = sum(parameter.numel() for parameter in model.model.language_model.layers.parameters())
    return 6.0 * layers * tokens


def peak_flops() -> float:
    """Return the GPU's peak of dense bfloat16; NaN if it is unknown."""
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else ""
    return next((peak for part, peak in PEAK_FLOPS.items() if part in name), float("nan"))


def print_row(*cells: object) -> None:
    """Print a row of the table."""
    print(
        "| " + " | ".join(f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in cells) + " |", flush=True
    )


def compare_gradients(model: Any, group: tuple[PromptInputs, Tensor]) -> tuple[float, float, float]:
    """Return differences between packed and ordinary rows.

    Returns:
        Mean and maximum difference of log-probabilities, and the relative difference of all gradients.
    """
    rows = forward_backward(row_logps, model, *group)
    expected = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    packed = forward_backward(packed_logps, model, *group)
    difference = squares = 0.0
    for name, gradient in expected.items():
        packed_gradient = model.get_parameter(name).grad.float()
        difference += float((packed_gradient - gradient.float()).square().sum())
        squares += float(gradient.float().square().sum())
    model.zero_grad(set_to_none=True)
    errors = (packed - rows).abs()
    return float(errors.mean()), float(errors.max()), (difference / squares) ** 0.5


def compare_training(model: Any, size: Size, repeats: int) -> None:
    """Print the rows on packed rows and rows per completion."""
    use_checkpointing(model, True)
    for video in size.videos:
        for group_size in size.groups:
            prompt, completions = make_group(video, group_size, size.completion, model)
            group = encode_video(model, prompt), completions
            P = group[0].input_ids_L.numel()
            tokens = {"packed": P + group_size * size.completion, "rows": group_size * (P + size.completion)}
            for name, method in (("packed", packed_logps), ("rows", row_logps)):
                run = functools.partial(forward_backward, method, model, *group)
                taken, peak = seconds(run, repeats)
                use = model_flops(model, tokens[name]) / taken / peak_flops()
                print_row(f"forward, backward: {name}", f"{video} video tokens, G={group_size}", f"{taken:.3f} s",
                          f"MFU {use:.2f}, {3600 / taken:.0f} prompts per hour", peak)  # fmt: skip
    group = make_group(size.videos[0], size.groups[0], size.completion, model)
    mean, largest, gradient = compare_gradients(model, group)
    print_row("packed against rows", f"{size.videos[0]} video tokens, G={size.groups[0]}",
              f"log-probabilities: mean {mean:.2e}, max {largest:.2e}", f"gradients: {gradient:.2e}", "")  # fmt: skip
    print_row("kernels: packed", "", kernels(lambda: forward_backward(packed_logps, model, *group)), "", "")
    model.zero_grad(set_to_none=True)
    use_checkpointing(model, False)


def stock_generate(model: Any, prompts: list[PromptInputs], group: int, config: GenerationConfig) -> list[list[int]]:
    """Return completions of transformers' `generate`, with the whole prompt repeated for each."""
    B = len(prompts)
    ids_BL = torch.stack([prompt.input_ids_L for prompt in prompts]).repeat_interleave(group, 0)
    model.set_attn_implementation({"text_config": "sdpa", "vision_config": "sdpa"})
    output = model.generate(
        input_ids=ids_BL,
        attention_mask=torch.ones_like(ids_BL),
        mm_token_type_ids=torch.where(ids_BL == VIDEO, 2, 0),
        pixel_values_videos=torch.cat([prompt.video_ND for prompt in prompts for _ in range(group)]),
        video_grid_thw=torch.cat([prompt.grid_thw_13 for prompt in prompts for _ in range(group)]),
        second_per_grid_ts=torch.ones(B * group),
        generation_config=config,
        suppress_tokens=vision_token_ids(model.config),
    )
    enable_shared_prefix(model)
    enable_segment_attention(model)
    completions: list[list[int]] = output[:, ids_BL.shape[1] :].tolist()
    return completions


def compare_rollouts(model: Any, size: Size) -> None:
    """Print the rows on generation."""
    options: dict[str, Any] = {"do_sample": False, "pad_token_id": PAD}
    config = GenerationConfig(max_new_tokens=size.completion, min_new_tokens=size.completion, **options)
    for video in size.videos:
        for count, group in size.rollouts:
            prompts = [make_group(video, 1, 1, model)[0] for _ in range(count)]
            for name, run in (("rarft", generate), ("stock", stock_generate)):
                taken, peak = seconds(functools.partial(run, model, prompts, group, config), 1)
                rate = count * group * size.completion / taken
                print_row(f"rollout: {name}", f"{video} video tokens, {count} x {group}", f"{taken:.2f} s",
                          f"{rate:.0f} tokens/s", peak)  # fmt: skip


def use_checkpointing(model: Any, enabled: bool) -> None:
    """Prepare the model for gradient checkpointing, as in training, or for generation."""
    model.train(enabled)
    if enabled:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_disable()


def set_vision_attention(model: Any, name: str) -> None:
    """Set the attention of the vision tower: `rarft` or `stock`."""
    if name == "rarft":
        enable_segment_attention(model)
    else:
        model.set_attn_implementation({"vision_config": "sdpa"})


def compare_vision(model: Any, size: Size, repeats: int) -> None:
    """Print the rows on the vision tower, forward and backward with gradient checkpointing."""
    visual = model.model.visual
    visual.requires_grad_(True)
    use_checkpointing(model, True)
    for video in size.videos:
        prompt, _ = make_group(video, 1, 1, model)

        def run(prompt: PromptInputs = prompt) -> None:
            visual.zero_grad(set_to_none=True)
            features: Tensor = visual(prompt.video_ND, prompt.grid_thw_13).last_hidden_state
            features.float().square().mean().backward()

        for name in ("stock", "rarft"):
            set_vision_attention(model, name)
            taken, peak = seconds(run, repeats)
            print_row(f"vision tower: {name}", f"{video} video tokens", f"{taken:.3f} s", "", peak)
    print_row("kernels: vision tower", "", kernels(run), "", "")
    visual.zero_grad(set_to_none=True)
    visual.requires_grad_(False)
    use_checkpointing(model, False)


@torch.no_grad()
def compare_with_float32(model: Any, size: Size) -> None:
    """Print the mean errors of bfloat16 against the same weights in float32, which the model has afterwards."""
    prompt, completions = make_group(size.videos[0], size.groups[0], size.completion, model)
    features, logps = {}, {}
    for name in ("stock", "rarft"):
        set_vision_attention(model, name)
        features[name] = model.model.visual(prompt.video_ND, prompt.grid_thw_13).last_hidden_state
    for name, method in (("packed", packed_logps), ("rows", row_logps)):
        logps[name] = torch.cat(list(method(model, prompt, completions)))
    model.float()
    prompt = replace(prompt, video_ND=prompt.video_ND.float())
    expected = model.model.visual(prompt.video_ND, prompt.grid_thw_13).last_hidden_state
    errors = {name: float((found - expected).abs().mean() / expected.abs().mean()) for name, found in features.items()}
    found = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
    print_row("error against float32: vision tower", f"{size.videos[0]} video tokens", found, "relative", "")
    expected = torch.cat(list(row_logps(model, prompt, completions)))
    found = ", ".join(f"{name} {float((values - expected).abs().mean()):.1e}" for name, values in logps.items())
    print_row("error against float32: log-probabilities", f"{size.videos[0]} video tokens", found, "nats", "")


def main() -> None:
    """Print the table."""
    on_gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description="Speed and equality of the model's parts on a GPU.")
    parser.add_argument("--size", choices=SIZES, default="7b" if on_gpu else "small", help="Size of the model.")
    parser.add_argument("--repeats", type=int, default=3, help="Measurements of each kind, at most.")
    options = parser.parse_args()
    device, dtype = ("cuda", torch.bfloat16) if on_gpu else ("cpu", torch.float32)
    size = SIZES[options.size]
    model = build_model(size, device, dtype)
    machine = torch.cuda.get_device_name() if on_gpu else "CPU"
    print(f"{machine}, torch {torch.__version__}, transformers {transformers.__version__}, {options.size}, {dtype}\n")
    print_row("what", "input", "result", "", "peak memory")
    print_row(*["---"] * 5)
    compare_vision(model, size, options.repeats)
    compare_rollouts(model, size)
    compare_training(model, size, options.repeats)
    compare_with_float32(model, size)


if __name__ == "__main__":
    main()
