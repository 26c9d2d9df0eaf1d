"""Mistakes that are told before anything heavy is loaded."""

import importlib.util
import os
from pathlib import Path
from typing import Any

import torch

from rarft.annotations.schema import Sample
from rarft.checkpoint.locate import check_checkpoint
from rarft.errors import InputError, input_name
from rarft.models.qwen2_5_vl.load import count_parameters
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.storage.files import local_path
from rarft.storage.s3 import is_object_uri
from rarft.training.config import frame_sampling
from rarft.training.data import row
from rarft.training.deepspeed_config import check_saves_whole_weights, deepspeed_file, zero_settings

# Parameters of the published models, the largest first.
PUBLISHED = {"72B": 73_410_777_344, "32B": 33_452_718_336, "7B": 8_292_166_656, "3B": 3_754_622_976}


def experiment_name(settings: dict[str, Any]) -> str:
    """`--exp_name`, else the environment's EXP_NAME, else `rarft`; it may name a folder in a folder.

    Raises:
        InputError: it leads out of `checkpoints/`.
    """
    name = settings["exp_name"] or os.environ.get("EXP_NAME") or "rarft"
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"--exp_name {name}: leads out of checkpoints/; give a name such as rarft/first")
    return name


def check_settings(settings: dict[str, Any]) -> None:
    """Tell of settings that cannot be followed.

    Raises:
        InputError: the first of them.
    """
    if not settings["train_data_path"]:
        raise InputError("--train_data_path is missing; give the riq.jsonl of `rarft validate`")
    if settings["output_dir"]:
        raise InputError("--output_dir: checkpoints go to OUT/checkpoints/EXP_NAME; use --out and --exp_name")
    if settings["bf16"] and not settings["use_cpu"] and not torch.cuda.is_available():
        raise InputError(
            "--bf16: no GPU here, and these are settings for one; on this machine use --preset tiny, or --use_cpu true"
        )
    if settings["load_best_model_at_end"] or settings["save_strategy"] == "best" or settings["save_only_model"]:
        raise InputError(
            "--load_best_model_at_end, --save_strategy best, --save_only_model: do not go with checkpoints that a run "
            "can go on from; save by steps or epochs, and choose by `rarft evaluate`"
        )
    if settings["cast_lm_head_to_fp32"]:
        raise InputError("--cast_lm_head_to_fp32: trl cannot do that with Qwen2.5-VL; leave the flag out")
    if settings["model_init_kwargs"]:
        raise InputError("--model_init_kwargs: not supported; use --attn_implementation, --bf16 and --fix_vit")
    frame_sampling(settings)
    if settings["queries_per_item"] == "all":
        for flag, off in (("curriculum", "false"), ("refusable_pool", "null")):
            if settings[flag]:
                raise InputError(
                    f"--{flag} {settings[flag]}: selects queries to draw from, and --queries_per_item all draws none; "
                    f"use --{flag} {off} or --queries_per_item pair"
                )
    _check_installed(settings)
    check_saves_whole_weights(deepspeed_file(settings["deepspeed"]))
    resume = settings["resume_from_checkpoint"]
    if (
        resume not in (None, "auto", "none")
        and not is_object_uri(resume)
        and not local_path(resume, "--resume_from_checkpoint").is_dir()
    ):
        raise InputError(
            f"--resume_from_checkpoint {resume}: no such folder; give a checkpoint-N folder, its URI, auto, or none"
        )
    if settings["eval_strategy"] != "no" and not settings["eval_data_path"]:
        raise InputError("--eval_strategy: needs --eval_data_path, the riq.jsonl to evaluate on")
    check_checkpoint(settings["model_name_or_path"], "--model_name_or_path")
    check_model_fits(settings)


def check_model_fits(settings: dict[str, Any]) -> None:
    """Check that this process's GPU has memory for the weights that it holds while it generates (decision D26).

    Nothing else is counted. Under ZeRO-3, generation gathers all weights on each GPU. Without ZeRO-3, and in the
    engine of vLLM, each GPU holds them anyway. `--ds3_gather_for_generation false` gathers layer by layer.

    Raises:
        InputError: The weights take more than the GPU has.
    """
    if settings["use_cpu"] or not torch.cuda.is_available():
        return
    deepspeed = deepspeed_file(settings["deepspeed"])
    is_sharded = zero_settings(deepspeed).get("stage") == 3
    if is_sharded and not settings["ds3_gather_for_generation"] and not settings["use_vllm"]:
        return
    name = settings["model_name_or_path"]
    # Without DeepSpeed the weights are float32.
    parameter_gb = (2 if deepspeed and (settings["bf16"] or settings["fp16"]) else 4) / 1e9
    with input_name("--model_name_or_path"):
        weights_gb = count_parameters(name) * parameter_gb
    device = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
    memory_gb = torch.cuda.get_device_properties(device).total_memory / 1e9
    if weights_gb <= memory_gb:
        return
    reshard_callbacks = [
        (size, count * parameter_gb) for size, count in PUBLISHED.items() if count * parameter_gb <= memory_gb
    ]
    smaller = (
        f"use Qwen2.5-VL-{reshard_callbacks[0][0]} ({reshard_callbacks[0][1]:.1f} GB), or "
        if reshard_callbacks
        else "use "
    )
    conditions = ("" if is_sharded else " with --deepspeed zero3") + (" without --use_vllm" * settings["use_vllm"])
    raise InputError(
        f"--model_name_or_path {name}: each GPU holds all {weights_gb:.1f} GB of weights while it generates, and this "
        f"GPU has {memory_gb:.1f} GB; {smaller}--ds3_gather_for_generation false{conditions}, which is slow: it "
        "gathers all weights for each token"
    )


_LEAST_LORA_RATE = 1e-6


def lora_rate_warning(settings: dict[str, Any]) -> str | None:
    """Return a warning if LoRA adapters hardly learn at the learning rate (decision D23), else None."""
    rate = settings["learning_rate"]
    if not settings["use_peft"] or rate >= _LEAST_LORA_RATE:
        return None
    scale = settings["lora_alpha"] / settings["lora_r"]
    return (
        f"--learning_rate {rate:g} with --use_peft true: adapters with --lora_alpha / --lora_r = {scale:g} hardly "
        "learn at this rate; a usual rate for LoRA is 1e-5"
    )


def _check_installed(settings: dict[str, Any]) -> None:
    if settings["attn_implementation"] == "flash_attention_2" and not importlib.util.find_spec("flash_attn"):
        raise InputError(
            "--attn_implementation flash_attention_2: flash-attn is not installed; `pip install flash-attn` on a "
            "machine with a GPU, or leave the flag out: packed rows take torch's fused kernels in any case"
        )
    if settings["use_vllm"] and not importlib.util.find_spec("vllm"):
        raise InputError("--use_vllm: vllm is not installed; use an image that has it, or leave the flag out")
    if settings["use_vllm"] and (
        settings["vllm_mode"] != "colocate"
        or settings["vllm_tensor_parallel_size"] != 1
        or settings["vllm_enable_sleep_mode"]
    ):
        raise InputError(
            "--use_vllm: works colocated, one engine a GPU; leave --vllm_mode, --vllm_tensor_parallel_size and "
            "--vllm_enable_sleep_mode out"
        )
    if "wandb" in settings["report_to"] and not importlib.util.find_spec("wandb"):
        raise InputError("--report_to wandb: wandb is not installed; `pip install rarft[wandb]`, or --report_to none")


def check_prompt_lengths(samples: list[Sample], encoder: PromptEncoder, template: str, limit: int) -> None:
    """No prompt's text is longer than `--max_prompt_length`; nothing is ever truncated (decision D21).

    Raises:
        InputError: one is; the message names the item.
    """
    for sample in samples:
        if (length := encoder.count_text_tokens(row(sample, template)["prompt"])) > limit:
            raise InputError(
                f"--max_prompt_length {limit}: the text of {sample.id} (item {sample.source.item} of "
                f"{sample.source.file}) has {length} tokens; raise the limit or shorten the query"
            )
