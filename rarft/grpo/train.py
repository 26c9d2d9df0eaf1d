"""A training run: from settings and validated data to `checkpoint-final`."""

import contextlib
from pathlib import Path
from typing import Any

from transformers import AutoConfig, PrinterCallback, TrainerCallback, set_seed

from rarft.errors import EXIT_PREEMPTED, InputError
from rarft.grpo import config as configuration
from rarft.grpo.callbacks import CompleteCheckpoints, Epochs, ProgressLine, TrainingLog
from rarft.grpo.config import TrainingConfig
from rarft.grpo.curriculum import Curriculum
from rarft.grpo.data import TrainingRows, dataset, trainable
from rarft.grpo.launch import prepare_deepspeed
from rarft.grpo.model import FINAL, load_policy, lora_config, save_final
from rarft.grpo.preemption import SaveAtBoundaries
from rarft.grpo.preflight import check_prompt_lengths, check_settings, experiment_name
from rarft.grpo.resume import AUTO, checkpoint_to_resume, identity, is_done, mark_done, whole_identity
from rarft.grpo.tracking import wandb_run
from rarft.grpo.trainer import VideoGRPOTrainer
from rarft.qwen.ahead import PromptReader
from rarft.qwen.inputs import PromptEncoder
from rarft.qwen.loading import checkpoint_path, load_processor
from rarft.qwen.reading import ReadingSettings
from rarft.qwen.rollout import vision_token_ids
from rarft.references.encoder import SentenceEncoder
from rarft.references.store import ReferenceStore
from rarft.response import load_prompt_template
from rarft.rewards.registry import RewardFunction, resolve_rewards
from rarft.riq.schema import Sample, read_samples
from rarft.video.cache import FrameCache
from rarft.video.decode import read_frames


def _read_data(settings: dict[str, Any]) -> tuple[list[Sample], list[Sample]]:
    """Samples to train on, and samples to evaluate on during training, if any."""
    read = read_samples(settings["train_data_path"], "--train_data_path")
    samples = trainable(read)
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


def _prompt_encoder(
    args: TrainingConfig, processor: Any, model_config: Any, reading: ReadingSettings
) -> PromptEncoder:
    read = read_frames
    if args.frame_cache:
        read = FrameCache(Path(args.frame_cache), args.frame_cache_gb * 1e9).read
    return PromptEncoder(processor, model_config, reading.sampling, read, keep_frames=args.use_vllm)


def _build_trainer(
    args: TrainingConfig,
    rows: TrainingRows,
    eval_samples: list[Sample],
    rewards: list[RewardFunction],
    reading: ReadingSettings,
    callbacks: list[TrainerCallback],
) -> VideoGRPOTrainer:
    """Load the model and put the trainer together.

    Raises:
        InputError: a prompt is too long, the model cannot be loaded, or settings do not go together.
    """
    processor = load_processor(args.model_name_or_path, "--model_name_or_path")
    model_config = AutoConfig.from_pretrained(checkpoint_path(args.model_name_or_path))
    encoder = _prompt_encoder(args, processor, model_config, reading)
    check_prompt_lengths([*rows.all_samples, *eval_samples], encoder, reading.prompt, args.max_prompt_length)
    # This rank's prompts of the steps that are drawn at a time, and those of the next.
    batches = max(args.steps_per_generation, args.gradient_accumulation_steps)
    reader = PromptReader(encoder, args.decode_workers, 2 * args.prompts_per_device * (batches + 1))
    rows.on_draw = reader.announce

    args.generation_kwargs = {**(args.generation_kwargs or {}), "suppress_tokens": vision_token_ids(model_config)}
    # Rows are stratified already, and stay as they were laid out.
    args.shuffle_dataset = False
    args.disable_tqdm = True
    try:
        trainer = VideoGRPOTrainer(
            prompt_reader=reader,
            model=load_policy(args),
            reward_funcs=rewards,
            args=args,
            train_dataset=rows.dataset(),
            eval_dataset=dataset(eval_samples, reading.prompt) if eval_samples else None,
            processing_class=processor,
            peft_config=lora_config(args),
            callbacks=callbacks,
        )
    except ValueError as error:  # settings that only trl can tell do not go together
        raise InputError(" ".join(str(error).split())) from error
    trainer.remove_callback(PrinterCallback)  # whole log entries; they are in the log
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
    check_settings(settings)
    name = experiment_name(settings)
    folder = out / "checkpoints" / name
    template = load_prompt_template(settings["prompt_type"])
    samples, eval_samples = _read_data(settings)
    # Before the configuration, which may set up DeepSpeed: ZeRO-3 would partition the encoder.
    references = _load_references(settings)
    rewards = resolve_rewards(settings["reward_funcs"], references, settings["correction_baseline"])
    if settings["deepspeed"] not in (None, "none"):
        prepare_deepspeed(settings["use_cpu"])
    args = configuration.build(settings, folder)
    set_seed(args.seed)
    common, whole = identity(args, samples, template), whole_identity(settings, samples, template)
    asked = settings["resume_from_checkpoint"]
    if asked == AUTO and is_done(folder, whole) and (folder / FINAL).is_dir():
        print(f"training: {name} is done already; --resume_from_checkpoint none would train it anew", flush=True)
        return folder / FINAL
    resumed = checkpoint_to_resume(asked, folder, common)
    reading = ReadingSettings(template, args.video_fps, args.max_pixels, args.max_completion_length)
    curriculum = Curriculum(samples, args.seed, references.similarities) if args.curriculum else None
    rows = TrainingRows(samples, template, args.seed, args.prompts_per_generation, curriculum)
    if repeated := len(rows.samples()) - len(samples):
        print(f"training: {repeated} of {len(samples)} queries drawn once more, to fill the last batch", flush=True)
    checkpoints = CompleteCheckpoints(reading, common, args.save_total_limit)
    checkpoints.in_use = resumed
    args.save_total_limit, args.resume_from_checkpoint = None, None  # ours count complete checkpoints alone
    boundaries = SaveAtBoundaries()
    callbacks = [ProgressLine(), TrainingLog(folder, name), Epochs(rows), boundaries, checkpoints]
    trainer = _build_trainer(args, rows, eval_samples, rewards, reading, callbacks)
    with contextlib.ExitStack() as run:
        if "wandb" in args.report_to and trainer.accelerator.is_main_process:
            run.enter_context(wandb_run(folder, args.run_name or name))
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
    if boundaries.stopped:
        print(f"training: stopped at step {trainer.state.global_step}, as told; start again to go on", flush=True)
        trainer.accelerator.wait_for_everyone()  # a launcher kills the others once one has ended
        raise SystemExit(EXIT_PREEMPTED)
    if references.misses:
        print(f"training: {references.misses} reference queries were not precomputed and were encoded", flush=True)
    final = save_final(trainer, reading, folder)
    if trainer.accelerator.is_main_process:
        mark_done(folder, whole)
    return final
