"""Checks of settings and prompts that run before the model is loaded."""

import importlib.util
import os
from typing import Any

import torch

from rarft.annotations.schema import Sample
from rarft.checkpoint.resume import AUTO, NONE
from rarft.checkpoint.source import check_checkpoint
from rarft.errors import InputError, input_name
from rarft.models.qwen2_5_vl.load import count_parameters
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.storage.location import LocalFolder, parse_location
from rarft.training.config import frame_sampling
from rarft.training.data import make_row
from rarft.training.deepspeed_config import check_gathers_weights, deepspeed_file, zero_settings

# Parameters of the published models, largest first.
PUBLISHED = {"72B": 73_410_777_344, "32B": 33_452_718_336, "7B": 8_292_166_656, "3B": 3_754_622_976}
_MIN_LORA_RATE = 1e-6


def check_train_data_given(settings: dict[str, Any]) -> None:
    """Raise an `InputError` if no training data are given."""
    if not settings["train_data_path"]:
        raise InputError("--train_data_path: is missing; pass the riq.jsonl of `rarft validate`")


def check_settings(settings: dict[str, Any]) -> None:
    """Check that the settings of a run are supported, and that the names in them exist.

    Raises:
        InputError: The message names the first setting that does not pass.
    """
    check_train_data_given(settings)
    _check_supported(settings)
    frame_sampling(settings)
    _check_installed(settings)
    check_gathers_weights(deepspeed_file(settings["deepspeed"]))
    _check_resume_path(settings["resume_from_checkpoint"])
    if settings["eval_strategy"] != "no" and not settings["eval_data_path"]:
        raise InputError("--eval_strategy: needs --eval_data_path; pass the riq.jsonl to evaluate on")
    with input_name("--model_name_or_path"):
        check_checkpoint(settings["model_name_or_path"])
    check_model_fits(settings)


def _check_supported(settings: dict[str, Any]) -> None:
    if settings["output_dir"]:
        raise InputError("--output_dir: checkpoints go to OUT/checkpoints/EXP_NAME; use --out and --exp_name")
    if settings["bf16"] and not settings["use_cpu"] and not torch.cuda.is_available():
        raise InputError("--bf16: this machine has no GPU; use --preset tiny, or --use_cpu true")
    if settings["load_best_model_at_end"] or settings["save_strategy"] == "best" or settings["save_only_model"]:
        raise InputError(
            "--load_best_model_at_end, --save_strategy best, --save_only_model: not supported, because a run could "
            "not resume; save by steps or epochs, and choose a checkpoint with `rarft evaluate`"
        )
    if settings["cast_lm_head_to_fp32"]:
        raise InputError("--cast_lm_head_to_fp32: trl does not support it with Qwen2.5-VL; remove the flag")
    if settings["model_init_kwargs"]:
        raise InputError("--model_init_kwargs: not supported; use --attn_implementation, --bf16 and --fix_vit")
    for flag, off in (("curriculum", "false"), ("refusable_pool", "null")):
        if settings["queries_per_item"] == "all" and settings[flag]:
            raise InputError(
                f"--{flag} {settings[flag]}: selects queries to draw from, and --queries_per_item all draws none; "
                f"use --{flag} {off} or --queries_per_item pair"
            )


def _check_resume_path(requested: str | None) -> None:
    if requested in (None, AUTO, NONE):
        return
    with input_name("--resume_from_checkpoint"):
        location = parse_location(str(requested))
        if isinstance(location, LocalFolder) and not location.path.is_dir():
            raise InputError(f"{requested}: no such folder; use a checkpoint-N folder, its URI, auto, or none")


def check_model_fits(settings: dict[str, Any]) -> None:
    """Raise an `InputError` if this process's GPU has less memory than the weights need in generation (D26).

    Under ZeRO-3, generation gathers all weights on each GPU. Without ZeRO-3, and with vLLM, each GPU has them anyway.
    `--ds3_gather_for_generation false` gathers layer by layer.
    """
    if settings["use_cpu"] or not torch.cuda.is_available():
        return
    deepspeed = deepspeed_file(settings["deepspeed"])
    is_sharded = zero_settings(deepspeed).get("stage") == 3
    if is_sharded and not settings["ds3_gather_for_generation"] and not settings["use_vllm"]:
        return
    name = settings["model_name_or_path"]
    # Without DeepSpeed trained weights are float32.
    is_half = (settings["bf16"] and settings["use_peft"]) or (deepspeed and (settings["bf16"] or settings["fp16"]))
    parameter_gb = (2 if is_half else 4) / 1e9
    with input_name("--model_name_or_path"):
        weights_gb = count_parameters(name) * parameter_gb
    device = int(os.environ.get("LOCAL_RANK", "0")) % torch.cuda.device_count()
    memory_gb = torch.cuda.get_device_properties(device).total_memory / 1e9
    if weights_gb <= memory_gb:
        return
    models = [(size, count * parameter_gb) for size, count in PUBLISHED.items() if count * parameter_gb <= memory_gb]
    smaller = f"use Qwen2.5-VL-{models[0][0]} ({models[0][1]:.1f} GB), or " if models else "use "
    conditions = ("" if is_sharded else " with --deepspeed zero3") + (" without --use_vllm" * settings["use_vllm"])
    raise InputError(
        f"--model_name_or_path {name}: generation needs all {weights_gb:.1f} GB of weights on each GPU, and this "
        f"GPU has {memory_gb:.1f} GB; {smaller}--ds3_gather_for_generation false{conditions}, which is slow: it "
        "gathers all weights for each token"
    )


def lora_rate_warning(settings: dict[str, Any]) -> str | None:
    """Return a warning if LoRA adapters hardly learn at the learning rate (decision D23)."""
    rate, scale = settings["learning_rate"], settings["lora_alpha"] / settings["lora_r"]
    if not settings["use_peft"] or rate >= _MIN_LORA_RATE:
        return None
    return (
        f"--learning_rate {rate:g} with --use_peft true: adapters with --lora_alpha / --lora_r = {scale:g} hardly "
        "learn at this rate; a usual rate for LoRA is 1e-5"
    )


def _check_installed(settings: dict[str, Any]) -> None:
    if settings["use_vllm"] and not importlib.util.find_spec("vllm"):
        raise InputError("--use_vllm: vllm is not installed; use an image that has it, or remove the flag")
    if settings["use_vllm"] and settings["vllm_mode"] != "colocate":
        raise InputError(
            "--vllm_mode server: not supported, because the client of trl sends images only; remove the flag, "
            "which makes vLLM run in the processes of the trainer"
        )
    if "wandb" in settings["report_to"] and not importlib.util.find_spec("wandb"):
        raise InputError("--report_to wandb: wandb is not installed; `pip install rarft[wandb]`, or --report_to none")


def check_prompt_lengths(samples: list[Sample], encoder: PromptEncoder, template: str, max_tokens: int) -> None:
    """Raise an `InputError` if a prompt has more text tokens than `--max_prompt_length`. None is truncated (D21)."""
    for sample in samples:
        if (tokens := encoder.count_text_tokens(make_row(sample, template)["prompt"])) > max_tokens:
            raise InputError(
                f"--max_prompt_length {max_tokens}: the text of {sample.id} (item {sample.source.item} of "
                f"{sample.source.file}) has {tokens} tokens; raise the limit or shorten the query"
            )
