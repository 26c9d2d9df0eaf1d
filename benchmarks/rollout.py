"""Completions per second of transformers and vLLM, and what the synchronization of weights costs.

    VLLM_CPU_KVCACHE_SPACE=1 python -m benchmarks.rollout DATA [--model tiny] [--tokens 64] [--repeats 3]

DATA is validated. Each of its first four prompts gets G completions of exactly `--tokens` tokens. A sync copies all
weights into the engine and empties its caches, so that the next rollout reads the prompts again; without one, the
engine has them in its cache. Medians of the
repetitions; on a CPU, linear layers of vLLM run as products with their weights, which can be synchronized.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable

import torch
from transformers import AutoConfig, GenerationConfig

from rarft.annotations.schema import read_samples
from rarft.checkpoint.source import checkpoint_path
from rarft.models.qwen2_5_vl.load import load_model, load_processor
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt
from rarft.models.qwen2_5_vl.prompt_size import largest_prompt
from rarft.models.qwen2_5_vl.rollout import generate
from rarft.models.qwen2_5_vl.vllm_rollout import engine_options, engine_prompt
from rarft.prompts import fill_prompt

_PROMPTS = 4
_GROUPS = (1, 4, 8, 16)


def seconds(repeats: int, run: Callable[[], object]) -> float:
    """Return the median time of a function, after a first call that is not counted."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    """Run the benchmark and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="riq.jsonl or its folder")
    parser.add_argument("--model", default="tiny", help="checkpoint (default: tiny)")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per completion (default: 64)")
    parser.add_argument("--repeats", type=int, default=3, help="repetitions (default: 3)")
    options = parser.parse_args()

    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine runs in this process, as in training
    from vllm import LLM, SamplingParams
    from vllm.model_executor.layers import utils

    def keep_weight(layer: torch.nn.Module, remove_weight: bool) -> None:
        layer.cpu_linear = torch.nn.functional.linear

    if not torch.cuda.is_available():
        utils.dispatch_cpu_unquantized_gemm = keep_weight
    path = checkpoint_path(options.model)
    processor, config, settings = load_processor(path), AutoConfig.from_pretrained(path), PromptConfig.load(path)
    encoder = PromptEncoder(processor, config, settings.sampling, keep_frames=True)
    samples = read_samples(options.data)[:_PROMPTS]
    prompts = [
        encoder.encode(video_prompt(*fill_prompt(settings.prompt, one.query, one.duration, one.crop), one.video))
        for one in samples
    ]
    dtype, device = (torch.bfloat16, "cuda") if torch.cuda.is_available() else (torch.float32, "cpu")
    model = load_model(path, dtype).to(device).eval()
    tokenizer, limit = processor.tokenizer, config.text_config.max_position_embeddings
    size = largest_prompt(samples, encoder, settings.prompt, options.tokens, limit)
    engine = LLM(model=path, **engine_options(size, dtype, limit))
    requests = [engine_prompt(prompt, config.video_token_id) for prompt in prompts]
    on_device = [prompt.to(device) for prompt in prompts]

    def sync() -> None:
        engine.llm_engine.model_executor.driver_worker.model_runner.model.load_weights(model.named_parameters())
        engine.reset_prefix_cache()
        engine.llm_engine.reset_encoder_cache()

    print("| G | transformers | vLLM | vLLM, synchronized before each rollout |")
    print("|---|---|---|---|")
    for G in _GROUPS:
        generation = GenerationConfig(
            do_sample=True, max_new_tokens=options.tokens, min_new_tokens=options.tokens,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        sampling = SamplingParams(n=G, max_tokens=options.tokens, ignore_eos=True, logprobs=0)

        def with_vllm(sampling: SamplingParams = sampling) -> None:
            engine.generate(requests, sampling_params=sampling, use_tqdm=False)

        def after_sync(run: Callable[[], None] = with_vllm) -> None:
            sync()
            run()

        def with_transformers(G: int = G, config: GenerationConfig = generation) -> None:
            generate(model, on_device, G, config)

        rates = [
            len(prompts) * G / seconds(options.repeats, run) for run in (with_transformers, with_vllm, after_sync)
        ]
        print(f"| {G} | " + " | ".join(f"{rate:.1f}" for rate in rates) + " |", flush=True)
    print(f"one sync with its cache reset: {1000 * seconds(options.repeats, sync):.1f} ms")


if __name__ == "__main__":
    main()
