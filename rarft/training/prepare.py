"""Preparation of a training run: settings, data, rewards, folders and configuration, before the model is loaded."""

import logging
from dataclasses import dataclass
from typing import Any

from accelerate import PartialState
from transformers import enable_full_determinism, set_seed

from rarft.annotations.schema import Sample, read_samples
from rarft.distributed.collectives import run_on_main
from rarft.embeddings.encoder import SentenceEncoder
from rarft.embeddings.store import ReferenceStore
from rarft.errors import InputError, input_name
from rarft.models.qwen2_5_vl.load import download_checkpoint
from rarft.prompts import load_prompt_template
from rarft.rewards.columns import RewardFunction
from rarft.rewards.registry import resolve_rewards
from rarft.storage.files import local_path
from rarft.storage.location import parse_location
from rarft.training.config import TrainingConfig, build_config
from rarft.training.data import apply_multi_segment, filter_trainable
from rarft.training.deepspeed_config import prepare_deepspeed
from rarft.training.preflight import check_settings, lora_rate_warning
from rarft.training.run_dir import RunPaths
from rarft.training.run_identity import resume_key, run_fingerprint
from rarft.training.setting_values import check_buildable, check_values, experiment_name
from rarft.training.settings_parser import parse_settings
from rarft.training.tracking import check_wandb
from rarft.training.unchanged_videos import check_sizes, recorded_files

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to resume or to start."""

    name: str
    args: TrainingConfig
    paths: RunPaths
    resume_from: str | None  # value of --resume_from_checkpoint
    template: str  # text of the prompt template
    samples: list[Sample]
    eval_samples: list[Sample]  # for evaluation during training; may be empty
    references: ReferenceStore
    rewards: list[RewardFunction]
    fingerprint: dict[str, Any]  # settings that the result of the run depends on
    resume_key: dict[str, Any]  # settings that the run must share with a checkpoint to resume from it


def prepare_run(arguments: list[str]) -> PreparedRun:
    """Parse and check the settings of a run, and load all it needs except for the model."""
    settings = parse_settings(arguments)
    check_values(settings)
    if settings["full_determinism"]:
        # It sets environment variables that CUDA and cuBLAS read once, at their first use.
        enable_full_determinism(settings["seed"])
    check_settings(settings)
    name = experiment_name(settings)
    with input_name("--prompt_type"):
        template = load_prompt_template(settings["prompt_type"])
    samples, eval_samples = _read_data(settings)
    # Before the configuration, which may set up DeepSpeed: ZeRO-3 would partition the encoder.
    references = _load_references(settings)
    with input_name("--reward_funcs"):
        rewards = resolve_rewards(settings["reward_funcs"], references, settings["correction_baseline"])
    paths = RunPaths.from_settings(settings, name)
    with input_name("--work_dir"):
        work_dir = local_path(settings["work_dir"])
    with input_name("--model_name_or_path"):
        model = download_checkpoint(settings["model_name_or_path"], work_dir)
    if settings["deepspeed"] not in (None, "none"):
        prepare_deepspeed(settings["use_cpu"])
    args = build_config({**settings, "model_name_or_path": model}, paths.local)
    check_buildable(args)
    if "wandb" in args.report_to and PartialState().is_main_process:
        check_wandb()
    with input_name("--train_data_path"):
        run_on_main(check_sizes, recorded_files([*samples, *eval_samples]), args.max_skipped_videos)
    paths.make()
    set_seed(args.seed)
    if (warning := lora_rate_warning(settings)) and PartialState().is_main_process:
        logger.warning(warning)
    return PreparedRun(
        name=name,
        args=args,
        paths=paths,
        resume_from=settings["resume_from_checkpoint"],
        template=template,
        samples=samples,
        eval_samples=eval_samples,
        references=references,
        rewards=rewards,
        fingerprint=run_fingerprint(settings, samples, template),
        resume_key=resume_key(args, settings["model_name_or_path"], samples, template),
    )


def _read_data(settings: dict[str, Any]) -> tuple[list[Sample], list[Sample]]:
    """Return the samples for training, and those for evaluation during training."""
    path, eval_path = settings["train_data_path"], settings["eval_data_path"]
    with input_name("--train_data_path"):
        data = _read_samples(path, settings["multi_segment"])
        samples = filter_trainable(data, path)
    if skipped := len(data) - len(samples):
        logger.warning("%d of %d queries skipped, because the duration of their video is unknown", skipped, len(data))
    if not eval_path:
        return samples, []
    with input_name("--eval_data_path"):
        return samples, filter_trainable(_read_samples(eval_path, settings["multi_segment"]), eval_path)


def _read_samples(path: str, multi_segment: str) -> list[Sample]:
    """Read samples and apply `--multi_segment`."""
    data = read_samples(path)
    samples = apply_multi_segment(data, multi_segment)
    if not samples:
        raise InputError(f"{path}: all queries have several segments; pass --multi_segment first or union")
    if skipped := len(data) - len(samples):
        logger.warning(
            "%s: %d of %d queries skipped, because they have several segments; see --multi_segment",
            path, skipped, len(data),
        )  # fmt: skip
    return samples


def _load_references(settings: dict[str, Any]) -> ReferenceStore:
    with input_name("--encoder"):
        encoder = SentenceEncoder(settings["encoder"])
    if not settings["embeddings"]:
        return ReferenceStore(encoder)
    with input_name("--embeddings"):
        return ReferenceStore.load(parse_location(settings["embeddings"]), encoder)
