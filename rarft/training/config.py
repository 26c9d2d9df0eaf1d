"""Configuration of a training run: the fields of TRL's GRPOConfig and ours, with the training guide's defaults."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trl import GRPOConfig

from rarft.embeddings.encoder import DEFAULT_ENCODER
from rarft.errors import InputError
from rarft.rewards.columns import DEFAULT_REWARDS
from rarft.training.deepspeed_config import deepspeed_file
from rarft.training.tracking import resolve_report_to
from rarft.video.decode import MAX_FRAME_PIXELS, PATCH, FrameSampling

_MINIMUMS = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "num_generations": 2,
    "max_completion_length": 1,
    "max_prompt_length": 1,
    "learning_rate": 0.0,
    "beta": 0.0,
    "lora_r": 1,
    "decode_workers": 0,
    "frame_cache_gb": 0.0,
    "max_skipped_videos": 0,
    "refusable_pool": 1,
}
# `--max_pixels` of the guide: its default means the published budget, and half of it means half the budget (D22).
_DEFAULT_MAX_PIXELS = 12_845_056
LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")


@dataclass
class TrainingConfig(GRPOConfig):
    """Settings of TRL and ours. `per_device_train_batch_size` counts prompts when it is given (decision D20).

    Attributes:
        prompts_per_device: Prompts per device and step. `per_device_train_batch_size` then counts completions.
    """

    model_name_or_path: str = field(
        default="Qwen/Qwen2.5-VL-7B-Instruct",
        metadata={"help": "Base model: a Hub name, a folder, an s3:// URI, or `tiny`, the packaged model."},
    )
    train_data_path: str | None = field(
        default=None, metadata={"help": "Validated training data: riq.jsonl, or the folder that contains it."}
    )
    eval_data_path: str | None = field(
        default=None, metadata={"help": "Validated data for evaluation during training."}
    )
    data_version: str | None = field(
        default=None,
        metadata={"help": "Text that changes when the videos do. A run resumes only with the same text."},
    )
    exp_name: str | None = field(
        default=None,
        metadata={
            "help": "Name of the run. Checkpoints go to OUT/checkpoints/EXP_NAME. "
            "Default: the environment variable EXP_NAME, else rarft."
        },
    )
    out: str = field(
        default=".",
        metadata={"help": "Folder or s3://BUCKET/PREFIX that contains checkpoints/EXP_NAME."},
    )
    work_dir: str = field(
        default=".", metadata={"help": "With --out s3://...: local folder for checkpoints before their upload."}
    )
    prompt_type: str = field(
        default="rarft", metadata={"help": "Prompt template: rarft, rarft-text-first, brief, or a text file."}
    )
    reward_funcs: list[str] = field(
        default_factory=lambda: list(DEFAULT_REWARDS),
        metadata={"help": "Rewards to sum."},
    )
    correction_baseline: str = field(
        default="none",
        metadata={
            "help": "query: a correction is rewarded only for what it adds to an echo of the query.",
            "choices": ["none", "query"],
        },
    )
    encoder: str = field(
        default=DEFAULT_ENCODER,
        metadata={"help": "Sentence encoder of the correction reward: a name or a folder."},
    )
    embeddings: str | None = field(
        default=None,
        metadata={"help": "Precomputed reference embeddings: the output folder of `rarft embed`."},
    )
    max_pixels: int = field(
        default=_DEFAULT_MAX_PIXELS,
        metadata={
            "help": "Video resolution: the pixel budget of a video is "
            f"{FrameSampling.total_pixels} * max_pixels / {_DEFAULT_MAX_PIXELS}."
        },
    )
    video_total_pixels: int | None = field(
        default=None,
        metadata={"help": "Pixel budget of a video; overrides --max_pixels. 784 pixels per visual token."},
    )
    video_min_frame_pixels: int = field(
        default=FrameSampling.min_frame_pixels,
        metadata={"help": "Minimum size of a frame in pixels; takes precedence over the budget of the video."},
    )
    video_fps: float = field(default=FrameSampling.fps, metadata={"help": "Frames read per second of video."})
    max_prompt_length: int = field(
        default=2048, metadata={"help": "Maximum number of text tokens of a prompt; a longer one is an error."}
    )
    fix_vit: bool = field(default=False, metadata={"help": "Freeze the vision tower and train only its merger."})
    use_grpo: bool = field(default=True, metadata={"help": "GRPO loss; false: clipped token-mean loss (bnpo)."})
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "Attention of the vision tower, and with --prompt_sharing off of the whole model. "
            "Packed rows always use torch's fused kernels.",
            "choices": ["flash_attention_2", "sdpa", "eager"],
        },
    )
    use_peft: bool = field(default=False, metadata={"help": "Train LoRA adapters instead of the model's weights."})
    lora_r: int = field(default=64, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=16, metadata={"help": "Scale of the adapters, divided by their rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapters."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"],
        metadata={"help": "Names of language model layers, or one regular expression over all layers of the model."},
    )
    merge_lora: bool = field(
        default=True, metadata={"help": "Save the merged model in checkpoint-final; false: only the adapters."}
    )
    queries_per_item: str = field(
        default="pair",
        metadata={
            "help": "pair: one answerable and one refusable query per item and epoch, drawn again in each epoch; "
            "all: every query in every epoch.",
            "choices": ["pair", "all"],
        },
    )
    refusable_pool: int | None = field(
        default=None,
        metadata={"help": "Draw the refusable query from the first N of an item. Default: all of them."},
    )
    curriculum: bool = field(
        default=False,
        metadata={"help": "Draw easy refusable queries in the first epoch, also medium ones in the second, then all."},
    )
    decode_workers: int = field(
        default=2, metadata={"help": "Threads per rank that prefetch videos; 0: no prefetching."}
    )
    frame_cache: str | None = field(default=None, metadata={"help": "Folder that caches decoded frames."})
    frame_cache_gb: float = field(default=50.0, metadata={"help": "Maximum size of the frame cache in GB."})
    max_skipped_videos: int = field(
        default=10, metadata={"help": "Maximum number of unreadable videos that are skipped; one more is an error."}
    )
    log_completions_steps: int = field(
        default=10, metadata={"help": "Steps between two logged groups of completions with their rewards; 0: none."}
    )
    prompt_sharing: str = field(
        default="on",
        metadata={
            "help": "on: one packed forward per prompt; off: one row per completion.",
            "choices": ["on", "off"],
        },
    )
    # Fields of TRL and transformers with the guide's defaults.
    learning_rate: float = field(default=5e-7, metadata={"help": "Learning rate of AdamW."})
    num_generations: int | None = field(default=4, metadata={"help": "Completions per prompt (G)."})
    beta: float = field(default=0.05, metadata={"help": "Weight of the KL divergence from the base model."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Number of epochs."})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "Prompts per device and step."})
    per_device_eval_batch_size: int = field(default=1, metadata={"help": "Prompts per device in evaluation."})
    bf16: bool | None = field(default=True, metadata={"help": "Compute in bfloat16."})
    loss_type: str = field(default="grpo", metadata={"help": "Loss; --use_grpo false sets it to bnpo."})
    deepspeed: str | None = field(
        default="zero3_offload",
        metadata={"help": "DeepSpeed configuration: zero2, zero3, zero3_offload, a JSON file, or none."},
    )
    report_to: list[str] = field(
        default_factory=lambda: ["auto"],
        metadata={"help": "Trackers, such as wandb or tensorboard; auto: W&B if it is installed; or none."},
    )
    logging_steps: float = field(default=1, metadata={"help": "Steps between two log entries."})

    def __post_init__(self) -> None:
        for name, minimum in _MINIMUMS.items():
            value = getattr(self, name)
            if value is not None and not value >= minimum:
                raise ValueError(f"--{name} {value}: must be at least {minimum}")
        if not self.temperature > 0:
            raise ValueError(f"--temperature {self.temperature}: must be above 0")
        if self.loss_type not in LOSS_TYPES:
            raise ValueError(f"--loss_type {self.loss_type}: unknown; use one of {', '.join(LOSS_TYPES)}")
        if self.reward_weights is not None and len(self.reward_weights) != len(self.reward_funcs):
            raise ValueError(
                f"--reward_weights: {len(self.reward_weights)} weights for {len(self.reward_funcs)} rewards; "
                "pass one per reward"
            )
        generations = self.num_generations or 1
        self.prompts_per_device = self.per_device_train_batch_size
        self.per_device_train_batch_size *= generations
        self.per_device_eval_batch_size *= self.num_generations_eval or generations
        self.report_to = resolve_report_to(self.report_to)
        self.deepspeed = deepspeed_file(self.deepspeed)
        if not self.use_grpo:
            self.loss_type = "bnpo"
        super().__post_init__()

    @property
    def prompts_per_generation(self) -> int:
        """Number of prompts in one generation of all ranks."""
        return int(self.generation_batch_size or 0) // (self.num_generations or 1)

    @property
    def sampling(self) -> FrameSampling:
        """Sampling of a video's frames."""
        return frame_sampling(vars(self))


def frame_sampling(settings: Mapping[str, Any]) -> FrameSampling:
    """Return the sampling of a video's frames by the settings of `rarft train`.

    Raises:
        InputError: A setting is out of its range.
    """
    fps, total = settings["video_fps"], settings["video_total_pixels"]
    max_pixels, min_frame = settings["max_pixels"], settings["video_min_frame_pixels"]
    if not 0 < fps < math.inf:
        raise InputError(f"--video_fps {fps}: must be above 0")
    if not PATCH * PATCH <= min_frame <= MAX_FRAME_PIXELS:
        raise InputError(
            f"--video_min_frame_pixels {min_frame}: must be between {PATCH * PATCH} and {MAX_FRAME_PIXELS}"
        )
    flag = f"--video_total_pixels {total}"
    if total is None:
        flag = f"--max_pixels {max_pixels}"
        total = FrameSampling.total_pixels * max_pixels // _DEFAULT_MAX_PIXELS
    if total < min_frame:
        raise InputError(
            f"{flag}: gives a video {total} pixels, fewer than --video_min_frame_pixels {min_frame} of one frame; "
            "raise the former or lower the latter"
        )
    return FrameSampling(fps, total, min_frame)


def build_config(settings: Mapping[str, Any], output_dir: Path) -> TrainingConfig:
    """Return the configuration with these settings. It may set up DeepSpeed.

    Raises:
        InputError: A setting is out of its range, or contradicts another one.
    """
    try:
        return TrainingConfig(**{**settings, "output_dir": str(output_dir)})
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(" ".join(str(error).split())) from error
