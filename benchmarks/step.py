"""Cost of one GRPO optimization step on a video prompt, in three ways: `python benchmarks/step.py [growth]`.

- reference: as in the published trainer: pixel values and prompt repeated for every completion, logits at every
  position, log-softmax and entropy over the whole vocabulary row by row;
- per completion: without sharing, but efficient: the prompt repeated, logits only at completions;
- shared: each prompt once, and the frozen vision tower once for all passes (this trainer).

A step is the rollout's prefill, the reference model's pass, and the policy's forward and backward pass. Decoding,
which is the same in all ways, is left out. `growth` shows how the last two ways grow with the group, the prompt and
the completion. Each way runs in its own process. For a GPU, see `benchmarks/gpu.py`.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration
from trl.trainer.utils import add_fused_lm_head

from rarft.models.qwen2_5_vl import shared_prefix
from rarft.models.qwen2_5_vl.logprobs import limit_lm_head_to_completions, per_completion_logps, shared_prefix_logps
from rarft.models.qwen2_5_vl.mrope import prompt_positions
from rarft.models.qwen2_5_vl.per_completion import per_completion_batch
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.shared_prefix import enable_shared_prefix
from rarft.models.qwen2_5_vl.vision_features import MERGER, enable_cached_features, encode_video
from rarft.reporting.charts import curves
from rarft.reporting.html import render_page

VIDEO, PAD = 151_656, 151_643
PATCH_WIDTH = 3 * 2 * 14 * 14
PARTS = ("prefill", "reference", "policy")
PER_STEP = 96  # video tokens per time step: 16 x 24 patches, merged 2 x 2


@dataclass(frozen=True)
class Shape:
    """Sizes of a step: P prompt tokens, most of them video, and G completions of C tokens."""

    P: int
    C: int
    G: int

    @property
    def time_steps(self) -> int:
        """Time steps of the video's grid."""
        return (self.P - 20) // PER_STEP


def build_model() -> Any:
    """Return a small random Qwen2.5-VL with the real vocabulary and a frozen vision tower."""
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4, "num_key_value_heads": 2,
            "intermediate_size": 768, "vocab_size": 151_936, "bos_token_id": None, "eos_token_id": PAD,
            "pad_token_id": PAD,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]},
        },
        vision_config={
            "depth": 8, "hidden_size": 256, "intermediate_size": 512, "num_heads": 4, "out_hidden_size": 256,
            "tokens_per_second": 2, "fullatt_block_indexes": [7],
        },
        video_token_id=VIDEO, image_token_id=151_655, vision_start_token_id=151_652, vision_end_token_id=151_653,
        tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(0)
    model = Qwen2_5_VLForConditionalGeneration(config)
    for name, parameter in model.model.visual.named_parameters():
        parameter.requires_grad = name.startswith(MERGER)
    return model.eval()


def make_group(shape: Shape) -> tuple[PromptInputs, Tensor]:
    """Return a prompt with its video, and G random completions."""
    generator = torch.Generator().manual_seed(1)
    T, H, W = shape.time_steps, 16, 24
    text = torch.randint(1000, 5000, (shape.P - T * PER_STEP,), generator=generator)
    ids = torch.cat([text[:10], torch.full((T * PER_STEP,), VIDEO), text[10:]])
    positions = prompt_positions(ids, VIDEO, [(T, H // 2, W // 2)], [1.0], 2.0)
    pixels = torch.randn((T * H * W, PATCH_WIDTH), generator=generator)
    prompt = PromptInputs(ids, positions, pixels, torch.tensor([[T, H, W]]))
    completions = torch.randint(1000, 5000, (shape.G, shape.C), generator=generator)
    return prompt, completions


Passes = dict[str, Callable[[], Any]]


def policy_loss(logps: Tensor) -> Tensor:
    """Return a loss with a gradient at every token."""
    return -(logps * torch.linspace(-1, 1, logps.shape[0], device=logps.device)[:, None]).mean()


def reference_algorithm(model: Any, base: Any, prompt: PromptInputs, completions: Tensor) -> Passes:
    """Return the passes of the published trainer, one row at a time: a batch of its logits would not fit in memory."""
    P, G = prompt.input_ids_L.numel(), completions.shape[0]

    def logps(row_model: Any, row: int) -> Tensor:
        model_inputs, _ = per_completion_batch([(prompt, completions[row])], PAD)
        logits = row_model(**model_inputs, use_cache=False).logits[0, :-1].float()
        log_softmax = logits.log_softmax(-1)
        with torch.no_grad():
            -(log_softmax.exp() * log_softmax).sum(-1)  # entropy at every position
        return log_softmax.gather(-1, model_inputs["input_ids"][0, 1:, None])[P - 1 :, 0]

    def policy() -> None:
        for row in range(G):
            policy_loss(logps(model, row)[None]).backward()

    @torch.no_grad()
    def reference() -> None:
        for row in range(G):
            logps(base, row)

    return {"prefill": lambda: prefill(model, [prompt] * G), "reference": reference, "policy": policy}


@torch.no_grad()
def prefill(model: Any, prompts: list[PromptInputs]) -> None:
    """Run the rollout's prefill."""
    empty = torch.empty(0, dtype=torch.long, device=prompts[0].input_ids_L.device)
    model_inputs, _ = per_completion_batch([(prompt, empty) for prompt in prompts], PAD)
    model(**model_inputs, use_cache=True, logits_to_keep=1)


def per_completion(model: Any, base: Any, prompt: PromptInputs, completions: Tensor) -> Passes:
    """Return the passes with a copy of the prompt and the video for every completion."""
    mask = torch.ones_like(completions)

    @torch.no_grad()
    def reference() -> None:
        per_completion_logps(base, prompt, completions, mask, PAD)

    def policy() -> None:
        policy_loss(per_completion_logps(model, prompt, completions, mask, PAD)[0]).backward()

    return {
        "prefill": lambda: prefill(model, [prompt] * len(completions)), "reference": reference, "policy": policy
    }  # fmt: skip


def shared(model: Any, base: Any, prompt: PromptInputs, completions: Tensor) -> Passes:
    """Return the passes with one copy of the prompt. Only the prefill runs the vision tower."""
    mask = torch.ones_like(completions)
    encoded: list[PromptInputs] = []

    def encode_and_prefill() -> None:
        encoded[:] = [encode_video(model, prompt)]
        prefill(model, encoded)

    @torch.no_grad()
    def reference() -> None:
        shared_prefix_logps(base, encoded[0], completions, mask)

    def policy() -> None:
        policy_loss(shared_prefix_logps(model, encoded[0], completions, mask)[0]).backward()

    return {"prefill": encode_and_prefill, "reference": reference, "policy": policy}


WAYS = {"reference": reference_algorithm, "per completion": per_completion, "shared": shared}


def count_weights(model: Any) -> dict[str, int]:
    """Return the weights that each token is multiplied with, by part of the model."""
    count = {"vision": 0, "merger": 0, "text": 0, "head": model.get_output_embeddings().weight.numel()}
    for name, module in model.named_modules():
        if not isinstance(module, torch.nn.Linear | torch.nn.Conv3d) or name.startswith("lm_head"):
            continue
        part = "text" if "visual" not in name else "merger" if MERGER in name else "vision"
        count[part] += module.weight.numel()
    return count


def minimal_flops(model: Any, shape: Shape) -> dict[str, float]:
    """Return the minimal floating-point operations of each pass: products with weights, each token once.

    A backward pass with trained weights costs twice its forward pass. The vision blocks are frozen and run once.
    """
    count, video = count_weights(model), shape.time_steps * PER_STEP
    vision, merger = 2.0 * count["vision"] * 4 * video, 2.0 * count["merger"] * video
    scored = shape.G * shape.C
    forward = merger + 2.0 * count["text"] * (shape.P + scored) + 2.0 * count["head"] * scored
    return {
        "prefill": vision + merger + 2.0 * count["text"] * shape.P + 2.0 * count["head"],
        "reference": forward,
        "policy": 3 * forward,
    }


_PRODUCTS = ("mm", "addmm", "addmm_", "bmm", "convolution", "convolution_backward", "baddbmm")


def _plain_mask(rows: int, columns: int) -> Tensor:
    return torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows)


def _addmm_flop(_sum: Any, left: Any, right: Any, *_: Any, **__: Any) -> int:
    """Return the operations of a product of matrices of these shapes."""
    return int(2 * left[0] * left[1] * right[1])


def counted_flops(function: Callable[[], Any]) -> float:
    """Count the floating-point operations of the matrix products in a function, without attention."""
    # The counter does not support a causal bias: use a plain mask instead.
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.addmm_: _addmm_flop})
    with patch.object(shared_prefix, "causal_lower_right", _plain_mask), counter:
        function()
    return float(
        sum(
            flops
            for operation, flops in counter.get_flop_counts()["Global"].items()
            if str(operation).split(".")[-1] in _PRODUCTS
        )
    )


def measure(way: str, shape: Shape, repeats: int, count: bool) -> dict[str, Any]:
    """Return CPU and wall seconds of each pass, peak memory in bytes, and minimal and counted operations."""
    model, base = build_model(), build_model()
    for each in (model, base):
        add_fused_lm_head(each, outputs=("log_probs", "entropy"))
        limit_lm_head_to_completions(each)
        if way == "shared":
            enable_shared_prefix(each)
            enable_cached_features(each)
    prompt, completions = make_group(shape)
    passes = WAYS[way](model, base, prompt, completions)
    cpu: dict[str, list[float]] = {part: [] for part in PARTS}
    wall: dict[str, list[float]] = {part: [] for part in PARTS}
    for _ in range(repeats):
        for part in PARTS:
            model.zero_grad()
            start, cpu_start = time.perf_counter(), time.process_time()
            passes[part]()
            cpu[part].append(time.process_time() - cpu_start)
            wall[part].append(time.perf_counter() - start)
    return {
        "cpu": {part: statistics.median(values) for part, values in cpu.items()},
        "wall": {part: statistics.median(values) for part, values in wall.items()},
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "minimum": minimal_flops(model, shape),
        "counted": {part: counted_flops(passes[part]) for part in PARTS} if count else None,
    }


def run(way: str, shape: Shape, repeats: int, count: bool = False) -> dict[str, Any]:
    """Run `measure` in its own process."""
    options = json.dumps({"way": way, "shape": vars(shape), "repeats": repeats, "count": count})
    done = subprocess.run([sys.executable, __file__, "measure", options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{way} {shape}: {done.stderr.strip().splitlines()[-1]}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def step_table(groups: list[int], repeats: int) -> None:
    """Print the three ways at P=2000 and C=128."""
    print("P=2000, C=128; CPU seconds by pass and in total, wall seconds, peak memory, counted operations")
    for G in groups:
        totals = {}
        for way in WAYS:
            result = run(way, Shape(2000, 128, G), repeats, count=way != "reference")
            totals[way] = sum(result["cpu"].values())
            parts = "  ".join(f"{part} {result['cpu'][part]:6.1f}" for part in PARTS)
            wall, memory = sum(result["wall"].values()), result["peak"] / 2**30
            note = "row by row"
            if result["counted"]:
                counted, minimum = sum(result["counted"].values()), sum(result["minimum"].values())
                note = f"{counted / 1e12:.2f} TFLOP, {counted / minimum:.2f} of the minimum"
            print(
                f"G={G}  {way:<15}{parts}  total {totals[way]:6.1f}  wall {wall:6.1f}  {memory:5.1f} GiB  {note}",
                flush=True,
            )
        for way in ("reference", "per completion"):
            print(f"G={G}  shared takes {totals[way] / totals['shared']:.1f} times less CPU than {way}", flush=True)


@cache
def step_cpu_seconds(way: str, shape: Shape) -> float:
    """Return the CPU seconds of one step. The shape that all axes share is measured once."""
    return float(sum(run(way, shape, 1)["cpu"].values()))


def growth(out: Path) -> None:
    """Compare shared with per completion, varying G, P and C one at a time."""
    axes = {"G": (2, 4, 8, 16), "P": (500, 1000, 2000, 4000), "C": (32, 128, 512)}
    plots = {}
    for axis, values in axes.items():
        points = []
        for value in values:
            shape = Shape(**{"P": 2000, "C": 128, "G": 8, axis: value})
            separate, packed = step_cpu_seconds("per completion", shape), step_cpu_seconds("shared", shape)
            ratio = separate / packed
            points.append((float(value), ratio))
            times = f"per completion {separate:6.1f} s, shared {packed:6.1f} s, ratio {ratio:.2f}"
            print(f"{axis}={value:<5} {times}", flush=True)
        plots[f"CPU ratio by {axis}"] = curves({"per completion / shared": points}, "ratio", axis)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        render_page(
            "charts_page.html.j2", "Shared prompt and per completion", "CPU seconds of one step.", charts=plots
        )
    )
    print(out)


def main() -> None:
    """Parse the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", nargs="?", default="step", choices=["step", "growth", "measure"])
    parser.add_argument("options", nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--groups", type=int, nargs="+", default=[4, 8], help="completions per prompt")
    arguments = parser.parse_args()
    if arguments.table == "measure":
        options = json.loads(arguments.options)
        print(json.dumps(measure(**{**options, "shape": Shape(**options["shape"])})))
    elif arguments.table == "growth":
        growth(Path("out/benchmarks/growth.html"))
    else:
        step_table(arguments.groups, arguments.repeats)


if __name__ == "__main__":
    main()
