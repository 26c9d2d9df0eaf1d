"""The model that is trained: loaded, frozen in part, with or without adapters; and saved at the end."""

import re
import shutil
from pathlib import Path
from typing import Any

import torch

from rarft.checkpoint.local import CHECKPOINT_JSON, FINAL
from rarft.errors import input_name
from rarft.models.qwen2_5_vl.load import load_model
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.models.qwen2_5_vl.vision_features import MERGER
from rarft.storage.files import replace_folder
from rarft.storage.manifest import hash_files, write_manifest
from rarft.training.config import TrainingConfig
from rarft.training.trainer import MAX_SHARD, VideoGRPOTrainer


def load_policy(args: TrainingConfig) -> Any:
    """The model in the precision that it trains in, its vision tower frozen where `--fix_vit` says so."""
    # DeepSpeed keeps float32 master weights of its own; without it the weights themselves must be float32.
    dtype = torch.bfloat16 if args.bf16 and args.deepspeed else torch.float32
    options = {"attn_implementation": args.attn_implementation} if args.attn_implementation else {}
    with input_name("--model_name_or_path"):
        model = load_model(args.model_name_or_path, dtype, **options)
    if args.fix_vit:
        for name, parameter in model.model.visual.named_parameters():
            parameter.requires_grad = name.startswith(MERGER)  # decision D14
    return model


def lora_targets(names: list[str]) -> str:
    """The pattern of layers that get adapters.

    Plain names mean the language model's layers: the vision tower has layers of the same names. One name that
    is a pattern, such as `.*visual.*qkv`, is taken as it is.
    """
    if len(names) == 1 and not re.fullmatch(r"\w+", names[0]):
        return names[0]
    return rf".*language_model\..*\.({'|'.join(re.escape(name) for name in names)})"


def lora_config(args: TrainingConfig) -> Any:
    """The adapters of `--use_peft`, or None."""
    if not args.use_peft:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=args.lora_r,
        lora_alpha=args.lora_alpha,
        lora_dropout=args.lora_dropout,
        target_modules=lora_targets(args.lora_target_modules),
        task_type="CAUSAL_LM",
    )


def _merge(adapters: Path, merged: Path, args: TrainingConfig) -> None:
    """Write the base model with the adapters merged into its weights."""
    from peft import PeftModel
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # this one rank loads a whole model
    base = load_model(args.model_name_or_path, torch.bfloat16 if args.bf16 else torch.float32)
    PeftModel.from_pretrained(base, adapters).merge_and_unload().save_pretrained(merged, max_shard_size=MAX_SHARD)


def save_final(trainer: VideoGRPOTrainer, reading: PromptConfig, settings: dict[str, Any], folder: Path) -> Path:
    """Save model, processor and reading settings as `checkpoint-final`; complete or not there.

    Adapters are merged into the model, unless `--merge_lora false`.
    """
    final = folder / FINAL
    unfinished, adapters = folder / f".{final.name}.unfinished", folder / ".adapters.unfinished"
    merges = trainer.args.use_peft and trainer.args.merge_lora
    if trainer.accelerator.is_main_process:
        for leftover in (unfinished, adapters):  # of a run that was killed here
            shutil.rmtree(leftover, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(adapters if merges else unfinished))
    if trainer.accelerator.is_main_process:
        if merges:
            _merge(adapters, unfinished, trainer.args)
            shutil.rmtree(adapters)
        trainer.processing_class.save_pretrained(unfinished)
        reading.save(unfinished)
        about = {"step": trainer.state.global_step, "settings": settings}
        write_manifest(unfinished, CHECKPOINT_JSON, about, hash_files(unfinished, CHECKPOINT_JSON))
        replace_folder(unfinished, final)
    trainer.accelerator.wait_for_everyone()
    return final
