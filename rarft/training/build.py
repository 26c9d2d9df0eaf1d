"""Construction of the trainer: data set, prompts, model and callbacks."""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoConfig, PrinterCallback, TrainerCallback

from rarft.annotations.schema import Sample
from rarft.checkpoint.source import checkpoint_path
from rarft.checkpoint.uploader import CheckpointUploader
from rarft.errors import InputError, input_name
from rarft.models.qwen2_5_vl.load import load_processor
from rarft.models.qwen2_5_vl.prefetch import PromptPrefetcher
from rarft.models.qwen2_5_vl.prompt_check import check_prompts
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.models.qwen2_5_vl.prompt_encoder import FrameReader, PromptEncoder
from rarft.models.qwen2_5_vl.prompt_size import largest_prompt
from rarft.models.qwen2_5_vl.rollout import vision_token_ids
from rarft.models.qwen2_5_vl.vllm_rollout import engine_options
from rarft.storage.files import local_path
from rarft.training.callbacks.checkpoint import CheckpointCallback
from rarft.training.callbacks.log import JsonlLogCallback, ProgressCallback
from rarft.training.callbacks.preemption import PreemptionCallback
from rarft.training.config import TrainingConfig
from rarft.training.curriculum import Curriculum
from rarft.training.data import TrainingDataset, make_dataset, make_pools
from rarft.training.divergence import StepGuard
from rarft.training.model import load_policy, lora_config
from rarft.training.preflight import check_prompt_lengths
from rarft.training.prepare import PreparedRun
from rarft.training.trainer import VideoGRPOTrainer
from rarft.training.unchanged_videos import UnchangedVideos, recorded_files
from rarft.training.vllm_engine import engine_arguments, rollout_dtype, sampling_options
from rarft.video.cache import FrameCache
from rarft.video.decode import read_frames

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ResumePoint:
    """The start of a run."""

    checkpoint: Path | None  # None to start from scratch
    is_shared: bool  # whether all machines see the run's local folder
    callbacks: list[TrainerCallback]  # that resuming needs
    uploader: CheckpointUploader | None  # None without an object store, and on most processes


@dataclass(frozen=True)
class TrainingSession:
    """A trainer, and those of its callbacks that are used after training."""

    trainer: VideoGRPOTrainer
    checkpoints: CheckpointCallback
    preemption: PreemptionCallback
    log: JsonlLogCallback


def build_session(run: PreparedRun, start: ResumePoint) -> TrainingSession:
    """Load the model and build the trainer."""
    args, sampling = run.args, run.args.sampling
    prompt_config = PromptConfig(
        run.template, sampling.fps, sampling.total_pixels, sampling.min_frame_pixels, args.max_completion_length
    )
    pools = make_pools(run.samples, args.queries_per_item, args.refusable_pool)
    curriculum = Curriculum(pools, run.references.similarities) if args.curriculum else None
    rows = TrainingDataset(pools, run.template, args.seed, args.prompts_per_generation, curriculum)
    if PartialState().is_main_process:
        logger.info(rows.summary())
    guard = StepGuard(args.fp16)
    preemption = PreemptionCallback()
    checkpoints = CheckpointCallback(
        prompt_config,
        run.resume_key,
        args.save_total_limit,
        start.checkpoint,
        start.is_shared,
        start.uploader,
        guard,
        preemption,
    )
    args.save_total_limit, args.resume_from_checkpoint = None, None  # transformers would count incomplete ones
    log = JsonlLogCallback(run.paths.local, run.name)
    callbacks = [*start.callbacks, ProgressCallback(), log, rows, preemption, checkpoints]
    trainer = _build_trainer(run, rows, callbacks, guard)
    return TrainingSession(trainer, checkpoints, preemption, log)


def _make_prefetcher(run: PreparedRun, processor: Any, model_config: Any) -> PromptPrefetcher:
    args = run.args
    read: FrameReader = read_frames
    if args.frame_cache:
        read = FrameCache(local_path(args.frame_cache), args.frame_cache_gb * 1e9).read
    dtype = torch.bfloat16 if args.bf16 else torch.float32  # half the memory; autocast would convert them anyway
    read = UnchangedVideos(read, recorded_files([*run.samples, *run.eval_samples]))
    encoder = PromptEncoder(processor, model_config, args.sampling, read, args.use_vllm, dtype)
    # This rank's prompts of the steps that are drawn together, and those of the next.
    batches = max(args.steps_per_generation, args.gradient_accumulation_steps)
    return PromptPrefetcher(encoder, args.decode_workers, 2 * args.prompts_per_device * (batches + 1))


def _engine_options(
    args: TrainingConfig, samples: list[Sample], encoder: PromptEncoder, template: str, model_config: Any
) -> dict[str, Any]:
    """Return arguments of the vLLM engine that fit the largest prompt of the run, and set `vllm_max_model_length`."""
    limit = args.vllm_max_model_length or model_config.text_config.max_position_embeddings
    size = largest_prompt(samples, encoder, template, args.max_completion_length, limit)
    options = engine_options(size, rollout_dtype(args), limit)
    args.vllm_max_model_length = args.vllm_max_model_length or options["max_model_len"]
    return options


def _build_trainer(
    run: PreparedRun, rows: TrainingDataset, callbacks: list[TrainerCallback], guard: StepGuard
) -> VideoGRPOTrainer:
    args, prompt = run.args, run.template
    with input_name("--model_name_or_path"):
        processor = load_processor(args.model_name_or_path)
        model_config = AutoConfig.from_pretrained(checkpoint_path(args.model_name_or_path))
        prefetcher = _make_prefetcher(run, processor, model_config)
        check_prompts(rows.all_samples, prefetcher.encoder, prompt, args.model_name_or_path)
    samples = [*rows.all_samples, *run.eval_samples]
    check_prompt_lengths(samples, prefetcher.encoder, prompt, args.max_prompt_length)
    engine: Any = contextlib.nullcontext()
    if args.use_vllm:
        sampling_options(args, model_config)  # checks them
        engine = engine_arguments(_engine_options(args, samples, prefetcher.encoder, prompt, model_config))
    else:
        suppressed = {"suppress_tokens": vision_token_ids(model_config)}
        args.generation_kwargs = {**(args.generation_kwargs or {}), **suppressed}
    with input_name("--model_name_or_path"):
        model = load_policy(args)
    rows.on_draw = prefetcher.prefetch
    args.shuffle_dataset = False  # rows are in the order in which they are trained on
    args.disable_tqdm = True
    if args.ddp_find_unused_parameters is None and (args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        args.ddp_find_unused_parameters = False  # DDP cannot find them under reentrant checkpointing
    try:
        with engine:
            trainer = VideoGRPOTrainer(
                prefetcher=prefetcher,
                guard=guard,
                model=model,
                reward_funcs=run.rewards,
                args=args,
                train_dataset=rows.dataset(),
                eval_dataset=make_dataset(run.eval_samples, prompt) if run.eval_samples else None,
                processing_class=processor,
                peft_config=lora_config(args),
                callbacks=callbacks,
            )
    except ValueError as error:  # settings that contradict each other, which only trl detects
        raise InputError(" ".join(str(error).split())) from error
    trainer.remove_callback(PrinterCallback)  # it prints the log entries
    return trainer
