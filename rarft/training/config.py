"""Configuration of a training run: the fields of TRL's GRPOConfig and ours, with the training guide's defaults."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers.hf_argparser import HfArg
from trl import GRPOConfig

from rarft.embeddings.encoder import DEFAULT_ENCODER
from rarft.errors import InputError
from rarft.rewards.columns import DEFAULT_REWARDS
from rarft.training.deepspeed_config import deepspeed_file
from rarft.training.tracking import resolve_report_to
from rarft.video.sampling import MAX_FRAME_PIXELS, PATCH, FrameSampling

_MINIMUMS = {
    "per_device_train_batch_size": 1, "per_device_eval_batch_size": 1, "gradient_accumulation_steps": 1,
    "num_generations": 2, "max_completion_length": 1, "max_prompt_length": 1, "learning_rate": 0.0, "beta": 0.0,
    "lora_r": 1, "decode_workers": 0, "frame_cache_gb": 0.0, "max_skipped_videos": 0, "refusable_pool": 1,
}  # fmt: skip
# `--max_pixels` of the guide: its default means the published budget, and half of it means half the budget (D22).
_DEFAULT_MAX_PIXELS = 12_845_056
LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")


@dataclass
class TrainingConfig(GRPOConfig):
    """Settings of TRL and ours.

    `per_device_train_batch_size` is given in prompts (decision D20). An instance has that number as
    `prompts_per_device`, and completions in `per_device_train_batch_size`, as TRL does.
    """

    model_name_or_path: str = HfArg(
        default="Qwen/Qwen2.5-VL-7B-Instruct",
        help="Base model: a Hub name, a folder, an s3:// URI, or `tiny` for the packaged test model.",
    )
    train_data_path: str | None = HfArg(
        default=None, help="Validated training data: riq.jsonl, or the folder that contains it."
    )
    eval_data_path: str | None = HfArg(default=None, help="Validated data for evaluation during training.")
    data_version: str | None = HfArg(
        default=None, help="Version of the videos; change it when they change. A run resumes only if it is unchanged."
    )
    exp_name: str | None = HfArg(
        default=None,
        help="Name of the run. Checkpoints go to OUT/checkpoints/EXP_NAME. "
        "Defaults to the environment variable EXP_NAME, then to rarft.",
    )
    out: str = HfArg(default=".", help="Folder or s3://BUCKET/PREFIX under which checkpoints/EXP_NAME is written.")
    work_dir: str = HfArg(
        default=".", help="With --out s3://...: local folder that holds checkpoints until they are uploaded."
    )
    prompt_type: str = HfArg(
        default="rarft", help="Prompt template: rarft, rarft-no-think, rarft-text-first, brief, or a text file."
    )
    reward_funcs: list[str] = HfArg(
        default_factory=lambda: list(DEFAULT_REWARDS),
        help="Rewards to sum: format, refuse_iou, explain_correction, explain_correction_contrastive, refuse_giou, "
        "or file.py:function.",
    )
    correction_baseline: Literal["none", "query"] = HfArg(
        default="none",
        help="query: reward a correction only for its gain over repeating the query; none: no baseline.",
    )
    encoder: str = HfArg(
        default=DEFAULT_ENCODER,
        help="Sentence encoder for the correction reward: a SentenceTransformer name or folder.",
    )
    embeddings: str | None = HfArg(
        default=None, help="Precomputed reference embeddings: the output folder of `rarft embed`."
    )
    max_pixels: int = HfArg(
        default=_DEFAULT_MAX_PIXELS,
        help="Scales the pixel budget of a video to "
        f"{FrameSampling.total_pixels} * max_pixels / {_DEFAULT_MAX_PIXELS}.",
    )
    video_total_pixels: int | None = HfArg(
        default=None, help="Pixel budget of a video; overrides --max_pixels. There is one video token per 784 pixels."
    )
    video_min_frame_pixels: int = HfArg(
        default=FrameSampling.min_frame_pixels, help="Minimum frame size in pixels; overrides the budget of the video."
    )
    video_fps: float = HfArg(default=FrameSampling.fps, help="Frames sampled per second of video.")
    max_prompt_length: int = HfArg(
        default=2048, help="Maximum number of text tokens of a prompt; longer prompts are an error."
    )
    fix_vit: bool = HfArg(
        default=False, help="Freeze the vision tower except its merger; the language model still trains."
    )
    use_grpo: bool = HfArg(default=True, help="Use the GRPO loss; false selects the clipped token-mean loss (bnpo).")
    attn_implementation: Literal["flash_attention_2", "sdpa", "eager"] | None = HfArg(
        default=None,
        help="Attention implementation. The default is torch's fused kernels, with variable lengths where the GPU "
        "supports them; they also replace flash_attention_2 if flash-attn is missing. Packed rows always use them.",
    )
    use_peft: bool = HfArg(default=False, help="Train LoRA adapters instead of the model's weights.")
    lora_r: int = HfArg(default=64, help="Rank of the adapters.")
    lora_alpha: int = HfArg(default=16, help="Adapter outputs are scaled by lora_alpha / lora_r.")
    lora_dropout: float = HfArg(default=0.0, help="Dropout on the inputs of the adapters.")
    lora_target_modules: list[str] = HfArg(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"],
        help="Language model layers to adapt, or one regular expression matched against all layers.",
    )
    merge_lora: bool = HfArg(
        default=True, help="Merge the adapters into checkpoint-final; false saves only the adapters."
    )
    queries_per_item: Literal["pair", "all"] = HfArg(
        default="pair",
        help="pair: one answerable and one refusable query per item, redrawn every epoch; "
        "all: every query in every epoch.",
    )
    refusable_pool: int | None = HfArg(
        default=None, help="Draw the refusable query from an item's first N (default: all)."
    )
    multi_segment: Literal["skip", "first", "union"] = HfArg(
        default="skip",
        help="Queries with several segments: skip them, train on the first segment, or reward the IoU of the unions.",
    )
    curriculum: bool = HfArg(
        default=False, help="Draw only easy refusable queries in epoch 1, easy and medium ones in epoch 2, then all."
    )
    decode_workers: int = HfArg(default=2, help="Threads per rank that prefetch videos; 0 disables prefetching.")
    frame_cache: str | None = HfArg(default=None, help="Cache folder for decoded frames.")
    frame_cache_gb: float = HfArg(default=50.0, help="Maximum size of the frame cache in GB.")
    max_skipped_videos: int = HfArg(
        default=10, help="Maximum number of unreadable videos to skip before the run fails."
    )
    log_completions_steps: int = HfArg(
        default=10, help="Log one prompt's completions and rewards every N steps; 0 disables this."
    )
    prompt_sharing: Literal["on", "off"] = HfArg(
        default="on", help="on: one packed forward pass per prompt; off: one row per completion."
    )
    resume_from_checkpoint: str | None = HfArg(
        default=None, help="Checkpoint to resume from: auto (the newest valid one), a path or URI, or none."
    )
    # Fields of TRL and transformers with the guide's defaults.
    learning_rate: float = HfArg(default=5e-7, help="Learning rate of AdamW.")
    num_generations: int | None = HfArg(default=4, help="Completions per prompt (G).")
    beta: float = HfArg(default=0.05, help="Weight of the KL divergence from the base model.")
    num_train_epochs: float = HfArg(default=1.0, help="Number of epochs.")
    per_device_train_batch_size: int = HfArg(default=1, help="Prompts per device and step (not completions).")
    per_device_eval_batch_size: int = HfArg(default=1, help="Prompts per device in evaluation.")
    bf16: bool | None = HfArg(default=True, help="Compute in bfloat16.")
    loss_type: str = HfArg(default="grpo", help="Loss type; --use_grpo false forces bnpo.")
    deepspeed: str | None = HfArg(
        default="zero3_offload", help="DeepSpeed configuration: zero2, zero3, zero3_offload, a JSON file, or none."
    )
    report_to: list[str] = HfArg(
        default_factory=lambda: ["auto"],
        help="Trackers such as wandb; auto uses W&B if installed, and kubeflow in a TrainJob; none disables tracking.",
    )
    logging_steps: float = HfArg(default=1, help="Log metrics every N steps.")
    logging_nan_inf_filter: bool = HfArg(
        default=False, help="Only false is supported: true would hide a non-finite loss."
    )

    def __post_init__(self) -> None:
        for name, minimum in _MINIMUMS.items():
            value = getattr(self, name)
            if value is not None and not value >= minimum:
                raise ValueError(f"--{name} {value}: must be at least {minimum}")
        if not self.temperature > 0:
            raise ValueError(f"--temperature {self.temperature}: must be above 0")
        if self.logging_nan_inf_filter:
            raise ValueError(
                "--logging_nan_inf_filter true: not supported, as it hides a non-finite loss; drop the flag"
            )
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
        scale = str(self.scale_rewards).lower()  # type: ignore[has-type]
        self.scale_rewards = {"true": "group", "false": "none"}.get(scale, scale)
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
    """Return the sampling of a video's frames from the settings of `rarft train`."""
    fps, total, min_frame = (settings[f"video_{name}"] for name in ("fps", "total_pixels", "min_frame_pixels"))
    if not 0 < fps < math.inf:
        raise InputError(f"--video_fps {fps}: must be above 0")
    if not PATCH * PATCH <= min_frame <= MAX_FRAME_PIXELS:
        raise InputError(
            f"--video_min_frame_pixels {min_frame}: must be between {PATCH * PATCH} and {MAX_FRAME_PIXELS}"
        )
    flag = f"--video_total_pixels {total}"
    if total is None:
        flag = f"--max_pixels {settings['max_pixels']}"
        total = FrameSampling.total_pixels * settings["max_pixels"] // _DEFAULT_MAX_PIXELS
    if total < min_frame:
        raise InputError(
            f"{flag}: gives a video {total} pixels, fewer than --video_min_frame_pixels {min_frame} of one frame; "
            "raise the former or lower the latter"
        )
    return FrameSampling(fps, total, min_frame)


def build_config(settings: Mapping[str, Any], output_dir: Path) -> TrainingConfig:
    """Return the configuration with these settings. It may set up DeepSpeed."""
    try:
        return TrainingConfig(**{**settings, "output_dir": str(output_dir)})
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(" ".join(str(error).split())) from error
