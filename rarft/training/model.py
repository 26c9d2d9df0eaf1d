"""The trained model: loading, freezing, LoRA adapters, and saving at the end."""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rarft.annotations.schema import Sample
from rarft.checkpoint.local import CHECKPOINT_JSON, FINAL
from rarft.checkpoint.model_card import write_model_card
from rarft.models.qwen2_5_vl.load import load_model
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.models.qwen2_5_vl.vision_features import MERGER
from rarft.storage.files import replace_folder
from rarft.storage.manifest import hash_files, write_manifest
from rarft.training.config import TrainingConfig
from rarft.training.trainer import MAX_SHARD, VideoGRPOTrainer


def load_policy(args: TrainingConfig) -> Any:
    """Return the model in its training precision, with the vision tower frozen by `--fix_vit`."""
    # DeepSpeed has its own float32 master weights, and LoRA trains float32 adapters of frozen weights. Otherwise the
    # weights themselves must be float32.
    dtype = torch.bfloat16 if args.bf16 and (args.deepspeed or args.use_peft) else torch.float32
    model = load_model(args.model_name_or_path, dtype, args.attn_implementation)
    if args.fix_vit:
        for name, parameter in model.model.visual.named_parameters():
            parameter.requires_grad = name.startswith(MERGER)  # decision D14
    return model


def lora_targets(names: list[str]) -> str:
    """Return the regular expression of the layers that get adapters.

    Names stand for layers of the language model, because the vision tower has layers of the same names. A single
    regular expression, such as `.*visual.*qkv`, is returned as it is.
    """
    if len(names) == 1 and not re.fullmatch(r"\w+", names[0]):
        return names[0]
    return rf".*language_model\..*\.({'|'.join(re.escape(name) for name in names)})"


def lora_config(args: TrainingConfig) -> Any:
    """Return the LoRA configuration; None without `--use_peft`."""
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


def _merge_adapters(adapters: Path, merged: Path, args: TrainingConfig) -> None:
    """Save the base model with the adapters merged into its weights."""
    from peft import PeftModel
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    unset_hf_deepspeed_config()  # only this rank loads a model, and it must not be partitioned
    base = load_model(args.model_name_or_path, torch.bfloat16 if args.bf16 else torch.float32)
    PeftModel.from_pretrained(base, adapters).merge_and_unload().save_pretrained(merged, max_shard_size=MAX_SHARD)


def save_final(
    trainer: VideoGRPOTrainer,
    prompt_config: PromptConfig,
    resume_key: dict[str, Any],
    run: Path,
    samples: Sequence[Sample],
) -> None:
    """Save model, processor, prompt configuration and model card atomically as `checkpoint-final`.

    To be called by all processes.
    LoRA adapters are merged into the model, unless `--merge_lora false`.
    """
    temporary, adapters = run / f".{FINAL}.unfinished", run / ".adapters.unfinished"
    merges = trainer.args.use_peft and trainer.args.merge_lora
    trainer.save_model(str(adapters if merges else temporary))
    if trainer.accelerator.is_main_process:
        if merges:
            _merge_adapters(adapters, temporary, trainer.args)
            shutil.rmtree(adapters)
        prompt_config.save_processor(trainer.processing_class, temporary)
        prompt_config.save(temporary)
        data = Path(str(trainer.args.train_data_path)).name
        counts = len(samples), sum(sample.task_type == "refusable" for sample in samples)
        write_model_card(temporary, run.name, trainer.state.global_step, data, counts, resume_key)
        fields = {"step": trainer.state.global_step, "settings": resume_key}
        write_manifest(temporary, CHECKPOINT_JSON, fields, hash_files(temporary, CHECKPOINT_JSON))
        replace_folder(temporary, run / FINAL)
    trainer.accelerator.wait_for_everyone()
