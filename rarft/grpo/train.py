"""A training run: from settings and validated data to `checkpoint-final`."""

import contextlib
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, PrinterCallback, set_seed

from rarft.errors import InputError
from rarft.grpo import config as configuration
from rarft.grpo.callbacks import MetricsFile, ProgressLine, ReadingBesideCheckpoints
from rarft.grpo.config import TrainingConfig
from rarft.grpo.data import dataset, stratified, trainable, whole_batches
from rarft.grpo.tracking import wandb_run
from rarft.grpo.trainer import VideoGRPOTrainer
from rarft.qwen.inputs import PromptEncoder
from rarft.qwen.loading import check_checkpoint, checkpoint_path, load_model, load_processor
from rarft.qwen.reading import ReadingSettings
from rarft.qwen.rollout import vision_token_ids
from rarft.references.encoder import SentenceEncoder
from rarft.references.store import ReferenceStore
from rarft.response import load_prompt_template
from rarft.rewards.registry import RewardFunction, resolve_rewards
from rarft.riq.schema import Sample, read_samples
from rarft.storage import replace_folder

METRICS_JSONL = "training.jsonl"


def experiment_name(settings: dict[str, Any]) -> str:
    """`--exp_name`, else the environment's EXP_NAME, else `rarft`; it may name a folder in a folder.

    Raises:
        InputError: it leads out of `checkpoints/`.
    """
    name = settings["exp_name"] or os.environ.get("EXP_NAME") or "rarft"
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise InputError(f"--exp_name {name}: leads out of checkpoints/; give a name such as rarft/first")
    return name


def _check_prompt_lengths(samples: list[Sample], encoder: PromptEncoder, prompts: list[Any], limit: int) -> None:
    """No prompt's text is longer than `--max_prompt_length`; nothing is ever truncated (decision D21)."""
    for sample, prompt in zip(samples, prompts, strict=True):
        if (length := encoder.text_tokens(prompt)) > limit:
            raise InputError(
                f"--max_prompt_length {limit}: the text of {sample.id} (item {sample.source.item} of "
                f"{sample.source.file}) has {length} tokens; raise the limit or shorten the query"
            )


def _freeze_vision(model: Any) -> None:
    """Freeze patch embedding and vision blocks; the merger goes on training (decision D14)."""
    for name, parameter in model.model.visual.named_parameters():
        parameter.requires_grad = name.startswith("merger.")


def _refuse(settings: dict[str, Any]) -> None:
    """Tell of settings that cannot be followed, before anything is loaded.

    Raises:
        InputError: the first of them.
    """
    if not settings["train_data_path"]:
        raise InputError("--train_data_path is missing; give the riq.jsonl of `rarft validate`")
    if settings["use_vllm"]:
        raise InputError("--use_vllm: rollouts by vLLM are not built yet; leave the flag out")
    if settings["output_dir"]:
        raise InputError("--output_dir: checkpoints go to checkpoints/EXP_NAME; use --exp_name")
    if settings["bf16"] and not settings["use_cpu"] and not torch.cuda.is_available():
        raise InputError(
            "--bf16: no GPU here, and these are settings for one; on this machine use --preset tiny, or --use_cpu true"
        )
    resume = settings["resume_from_checkpoint"]
    if resume and not Path(resume).is_dir():
        raise InputError(f"--resume_from_checkpoint {resume}: no such folder; give a checkpoint-N folder")
    if settings["eval_strategy"] != "no" and not settings["eval_data_path"]:
        raise InputError("--eval_strategy: needs --eval_data_path, the riq.jsonl to evaluate on")
    check_checkpoint(settings["model_name_or_path"], "--model_name_or_path")


def _read_data(settings: dict[str, Any]) -> tuple[list[Sample], list[Sample]]:
    """Samples to train on, stratified, and samples to evaluate on during training, if any."""
    read = read_samples(settings["train_data_path"], "--train_data_path")
    samples = stratified(trainable(read), settings["seed"])
    if left_out := len(read) - len(samples):
        print(f"training: {left_out} of {len(read)} queries left out, their duration is not known", flush=True)
    if not settings["eval_data_path"]:
        return samples, []
    return samples, trainable(read_samples(settings["eval_data_path"], "--eval_data_path"))


def _load_references(settings: dict[str, Any]) -> ReferenceStore:
    encoder = SentenceEncoder(settings["encoder"])
    if not settings["embeddings"]:
        return ReferenceStore.empty(encoder)
    return ReferenceStore.load(settings["embeddings"], encoder)


def _build_trainer(
    args: TrainingConfig,
    samples: list[Sample],
    eval_samples: list[Sample],
    rewards: list[RewardFunction],
    reading: ReadingSettings,
) -> VideoGRPOTrainer:
    """Load the model and put the trainer together.

    Raises:
        InputError: a prompt is too long, the model cannot be loaded, or settings do not go together.
    """
    processor = load_processor(args.model_name_or_path, "--model_name_or_path")
    model_config = AutoConfig.from_pretrained(checkpoint_path(args.model_name_or_path))
    prompt_encoder = PromptEncoder(processor, model_config, reading.sampling)
    rows = dataset(whole_batches(samples, args.generation_batch_size // (args.num_generations or 1)), reading.prompt)
    if repeated := len(rows) - len(samples):
        print(f"training: {repeated} of {len(samples)} queries drawn once more, to fill the last batch", flush=True)
    _check_prompt_lengths(samples, prompt_encoder, rows["prompt"][: len(samples)], args.max_prompt_length)

    args.generation_kwargs = {**(args.generation_kwargs or {}), "suppress_tokens": vision_token_ids(model_config)}
    # Rows are stratified already, and stay as they were laid out.
    args.shuffle_dataset = False
    args.disable_tqdm = True
    # DeepSpeed keeps float32 master weights of its own; without it the weights themselves must be float32.
    dtype = torch.bfloat16 if args.bf16 and args.deepspeed else torch.float32
    model = load_model(args.model_name_or_path, "--model_name_or_path", dtype)
    if args.fix_vit:
        _freeze_vision(model)
    metrics = MetricsFile(Path(args.output_dir) / METRICS_JSONL)
    try:
        trainer = VideoGRPOTrainer(
            prompt_encoder=prompt_encoder,
            model=model,
            reward_funcs=rewards,
            args=args,
            train_dataset=rows,
            eval_dataset=dataset(eval_samples, reading.prompt) if eval_samples else None,
            processing_class=processor,
            callbacks=[ProgressLine(), metrics, ReadingBesideCheckpoints(reading)],
        )
    except ValueError as error:  # settings that only trl can tell do not go together
        raise InputError(" ".join(str(error).split())) from error
    trainer.remove_callback(PrinterCallback)  # whole log entries; they are in the metrics file
    return trainer


def train(arguments: list[str], out: Path) -> Path:
    """Train, and write `out/checkpoints/EXP_NAME/checkpoint-final` and its curves.

    Args:
        arguments: the flags of `rarft train`.
        out: folder that `checkpoints/` is made in.

    Returns:
        The final checkpoint: a Hugging Face folder with its processor.

    Raises:
        InputError: settings, data or model that cannot be used, as far as possible before the model is loaded.
    """
    settings = configuration.parse(arguments)
    _refuse(settings)
    folder = out / "checkpoints" / experiment_name(settings)
    template = load_prompt_template(settings["prompt_type"])
    samples, eval_samples = _read_data(settings)
    # Before the configuration, which may set up DeepSpeed: ZeRO-3 would partition the encoder.
    references = _load_references(settings)
    rewards = resolve_rewards(settings["reward_funcs"], references, settings["correction_baseline"])
    args = configuration.build(settings, folder)
    set_seed(args.seed)
    reading = ReadingSettings(template, args.video_fps, args.max_pixels, args.max_completion_length)
    trainer = _build_trainer(args, samples, eval_samples, rewards, reading)
    with contextlib.ExitStack() as run:
        if "wandb" in args.report_to and trainer.accelerator.is_main_process:
            run.enter_context(wandb_run(folder, args.run_name or experiment_name(settings)))
        trainer.train(resume_from_checkpoint=args.resume_from_checkpoint)
    if references.misses:
        print(f"training: {references.misses} reference queries were not precomputed and were encoded", flush=True)
    return _save_final(trainer, reading, folder)


def _save_final(trainer: VideoGRPOTrainer, reading: ReadingSettings, folder: Path) -> Path:
    """Save model, processor and reading settings as `checkpoint-final`; complete or not there."""
    final = folder / "checkpoint-final"
    unfinished = folder / f".{final.name}.unfinished"
    if trainer.accelerator.is_main_process:
        shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed here
    trainer.accelerator.wait_for_everyone()
    trainer.save_model(str(unfinished))
    if trainer.accelerator.is_main_process:
        trainer.processing_class.save_pretrained(unfinished)
        reading.save(unfinished)
        replace_folder(unfinished, final)
    trainer.accelerator.wait_for_everyone()
    return final
