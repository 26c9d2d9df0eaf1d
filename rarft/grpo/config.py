"""Every setting of a training run, with the guide's defaults.

Settings come from a named preset, then a YAML file (`--config`), then the command line; the later wins. They
are read as text first and become a `TrainingConfig` only in `build`, because making one may set up DeepSpeed,
and the sentence encoder must be loaded before that.
"""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser
from trl import GRPOConfig

from rarft.errors import InputError, suggestion
from rarft.grpo.launch import deepspeed_file, world_size
from rarft.grpo.tracking import trackers
from rarft.references.encoder import DEFAULT_ENCODER
from rarft.storage import existing_file
from rarft.video.decode import MAX_FRAME_PIXELS, PATCH, FrameSampling

# The least value of settings that take no smaller one.
_LEAST = {
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
# The guide's `--max_pixels`: its default stands for the published budget, and half of it for half of that (D22).
_DEFAULT_MAX_PIXELS = 12_845_056
# Names that the guide uses and transformers has dropped.
_RENAMED = {"--evaluation_strategy": "--eval_strategy"}
_LOSS_TYPES = ("grpo", "bnpo", "dr_grpo", "dapo", "luspo", "cispo", "sapo", "vespo")


@dataclass
class TrainingConfig(GRPOConfig):
    """TRL's settings and ours. `per_device_train_batch_size` counts prompts (decision D20)."""

    model_name_or_path: str = field(
        default="Qwen/Qwen2.5-VL-7B-Instruct",
        metadata={"help": "Base model: a hub name, a folder, or `tiny`, the packaged model."},
    )
    train_data_path: str | None = field(
        default=None, metadata={"help": "Validated training data: riq.jsonl, or the folder that holds it."}
    )
    eval_data_path: str | None = field(
        default=None, metadata={"help": "Validated data for evaluation during training."}
    )
    data_version: str | None = field(
        default=None,
        metadata={"help": "Text that changes when the videos do; a run goes on only with the same."},
    )
    exp_name: str | None = field(
        default=None,
        metadata={"help": "Checkpoints go to checkpoints/EXP_NAME; else the environment's EXP_NAME."},
    )
    out: str = field(
        default=".",
        metadata={"help": "Folder that checkpoints/EXP_NAME is made in, or s3://BUCKET/PREFIX."},
    )
    scratch: str = field(
        default=".", metadata={"help": "With --out s3://: folder for checkpoints on their way there."}
    )
    prompt_type: str = field(default="rarft", metadata={"help": "Prompt template: rarft, brief, or a text file."})
    reward_funcs: list[str] = field(
        default_factory=lambda: ["format", "refuse_iou", "explain_correction"],
        metadata={"help": "Rewards to sum."},
    )
    correction_baseline: str = field(
        default="none",
        metadata={
            "help": "query: a correction's bonus counts only what it adds over echoing the query.",
            "choices": ["none", "query"],
        },
    )
    encoder: str = field(
        default=DEFAULT_ENCODER,
        metadata={"help": "Sentence encoder of the correction reward: a name or a folder."},
    )
    embeddings: str | None = field(
        default=None,
        metadata={"help": "Precomputed reference embeddings: the folder that `rarft embed` wrote."},
    )
    max_pixels: int = field(
        default=_DEFAULT_MAX_PIXELS,
        metadata={
            "help": "Video resolution: a whole video gets "
            f"{FrameSampling.total_pixels} * max_pixels / {_DEFAULT_MAX_PIXELS} pixels."
        },
    )
    video_total_pixels: int | None = field(
        default=None,
        metadata={"help": "Pixel budget of a whole video; overrides --max_pixels. 784 pixels cost one video token."},
    )
    video_min_frame_pixels: int = field(
        default=FrameSampling.min_frame_pixels,
        metadata={"help": "Smallest size of a frame in pixels; takes precedence over the budget of the video."},
    )
    video_fps: float = field(default=FrameSampling.fps, metadata={"help": "Frames read per second of video."})
    max_prompt_length: int = field(
        default=2048, metadata={"help": "Most text tokens of a prompt; longer is an error."}
    )
    fix_vit: bool = field(default=False, metadata={"help": "Freeze the vision tower and train only its merger."})
    use_grpo: bool = field(default=True, metadata={"help": "GRPO loss; false: clipped token-mean loss (bnpo)."})
    attn_implementation: str | None = field(
        default=None,
        metadata={
            "help": "Attention of the vision tower, and with --prompt_sharing off of the whole model. "
            "Packed rows always take torch's fused kernels.",
            "choices": ["flash_attention_2", "sdpa", "eager"],
        },
    )
    use_peft: bool = field(default=False, metadata={"help": "Train LoRA adapters and leave the model as it is."})
    lora_r: int = field(default=64, metadata={"help": "Rank of the adapters."})
    lora_alpha: int = field(default=16, metadata={"help": "Scale of the adapters, divided by their rank."})
    lora_dropout: float = field(default=0.0, metadata={"help": "Dropout before the adapters."})
    lora_target_modules: list[str] = field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj"],
        metadata={"help": "Layers of the language model by name; or one pattern over the whole model's names."},
    )
    merge_lora: bool = field(
        default=True, metadata={"help": "checkpoint-final holds the merged model; false: the adapters alone."}
    )
    queries_per_item: str = field(
        default="pair",
        metadata={
            "help": "pair: each epoch asks one answerable and one refusable query per item, drawn anew; "
            "all: it asks every query.",
            "choices": ["pair", "all"],
        },
    )
    refusable_pool: int | None = field(
        default=None,
        metadata={"help": "Draw the refusable query from so many of an item's, the first; default: from all of them."},
    )
    curriculum: bool = field(
        default=False,
        metadata={"help": "Draw easy refusable queries in the first epoch, also medium ones in the second, then all."},
    )
    decode_workers: int = field(default=2, metadata={"help": "Threads per rank that read videos ahead; 0: none."})
    frame_cache: str | None = field(default=None, metadata={"help": "Folder that keeps decoded frames."})
    frame_cache_gb: float = field(default=50.0, metadata={"help": "Most that the folder may hold, in GB."})
    max_skipped_videos: int = field(
        default=10, metadata={"help": "So many videos may fail and be skipped; one more is an error."}
    )
    log_completions_steps: int = field(
        default=10, metadata={"help": "Steps between two printed blocks of completions with their rewards; 0: none."}
    )
    prompt_sharing: str = field(
        default="on",
        metadata={
            "help": "on: one packed forward per prompt; off: one row per completion.",
            "choices": ["on", "off"],
        },
    )
    # The guide's defaults where TRL's differ.
    learning_rate: float = field(default=5e-7, metadata={"help": "Of AdamW."})
    num_generations: int | None = field(default=4, metadata={"help": "Completions per prompt (G)."})
    beta: float = field(default=0.05, metadata={"help": "Weight of the KL divergence from the base model."})
    num_train_epochs: float = field(default=1.0, metadata={"help": "Passes over the data."})
    per_device_train_batch_size: int = field(default=1, metadata={"help": "Prompts per device and step."})
    per_device_eval_batch_size: int = field(default=1, metadata={"help": "Prompts per device when evaluating."})
    bf16: bool | None = field(default=True, metadata={"help": "Compute in bfloat16."})
    loss_type: str = field(default="grpo", metadata={"help": "Set by use_grpo."})
    deepspeed: str | None = field(
        default="zero3_offload",
        metadata={"help": "DeepSpeed configuration: zero2, zero3, zero3_offload, a JSON file, or none."},
    )
    report_to: list[str] = field(
        default_factory=lambda: ["auto"],
        metadata={"help": "Trackers: wandb, tensorboard, ...; auto: W&B where installed; none."},
    )
    logging_steps: float = field(default=1, metadata={"help": "Steps between two log entries."})

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and not value >= least:
                raise ValueError(f"--{name} {value}: must be at least {least}")
        if not self.temperature > 0:
            raise ValueError(f"--temperature {self.temperature}: must be above 0")
        if self.loss_type not in _LOSS_TYPES:
            raise ValueError(f"--loss_type {self.loss_type}: use one of {', '.join(_LOSS_TYPES)}")
        if self.reward_weights is not None and len(self.reward_weights) != len(self.reward_funcs):
            raise ValueError(
                f"--reward_weights: {len(self.reward_weights)} for {len(self.reward_funcs)} rewards; give one each"
            )
        generations = self.num_generations or 1
        self.prompts_per_device = self.per_device_train_batch_size
        self.per_device_train_batch_size *= generations
        self.per_device_eval_batch_size *= self.num_generations_eval or generations
        self.report_to = trackers(self.report_to)
        self.deepspeed = deepspeed_file(self.deepspeed)
        if not self.use_grpo:
            self.loss_type = "bnpo"
        super().__post_init__()

    @property
    def prompts_per_generation(self) -> int:
        """Prompts that all ranks together draw completions of at a time."""
        return int(self.generation_batch_size or 0) // (self.num_generations or 1)

    @property
    def sampling(self) -> FrameSampling:
        """Which frames of a video are read."""
        return frame_sampling(vars(self))


def frame_sampling(settings: Mapping[str, Any]) -> FrameSampling:
    """Return which frames of a video the settings of `rarft train` ask for.

    Raises:
        InputError: A setting is out of its range.
    """
    fps, total = settings["video_fps"], settings["video_total_pixels"]
    max_pixels, least = settings["max_pixels"], settings["video_min_frame_pixels"]
    if not 0 < fps < math.inf:
        raise InputError(f"--video_fps {fps}: must be a number above 0")
    if not PATCH * PATCH <= least <= MAX_FRAME_PIXELS:
        raise InputError(f"--video_min_frame_pixels {least}: must be from {PATCH * PATCH} to {MAX_FRAME_PIXELS}")
    flag = f"--video_total_pixels {total}"
    if total is None:
        flag = f"--max_pixels {max_pixels}"
        total = FrameSampling.total_pixels * max_pixels // _DEFAULT_MAX_PIXELS
    if total < least:
        raise InputError(
            f"{flag}: gives a video {total} pixels, fewer than the --video_min_frame_pixels {least} of one frame; "
            "raise the former or lower the latter"
        )
    return FrameSampling(fps, total, least)


def preset_names() -> list[str]:
    """Names of the packaged presets."""
    folder = resources.files("rarft.grpo").joinpath("presets")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


def _read_yaml(text: str, source: str) -> dict[str, Any]:
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{source}: is no YAML ({' '.join(str(error).split())})") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{source}: must map settings to values, such as `beta: 0.05`")
    return values


def preset(name: str, anywhere: bool = False) -> dict[str, Any]:
    """The settings of a packaged preset.

    Args:
        name: of the preset.
        anywhere: also where this run does not have the machines that it is for.

    Raises:
        InputError: no preset of that name, or one for other machines than this run has.
    """
    if name not in preset_names():
        raise InputError(f"--preset {name}: no such preset; use one of {', '.join(preset_names())}")
    file = resources.files("rarft.grpo").joinpath("presets", f"{name}.yaml")
    settings = _read_yaml(file.read_text(encoding="utf-8"), f"preset {name}")
    gpus = settings.pop("gpus", 1)
    if not anywhere and world_size() % gpus:
        raise InputError(
            f"--preset {name}: is for machines of {gpus} GPUs, and this run has {world_size()} process(es); "
            f"start it by torchrun --nproc_per_node {gpus}, or choose another preset"
        )
    return settings


def yaml_arguments(settings: str | Mapping[str, Any], source: str) -> list[str]:
    """Settings, or a YAML text of them, as command-line arguments, so that one parser checks them all.

    Raises:
        InputError: the text is no YAML of settings; the message names `source`.
    """
    values = _read_yaml(settings, source) if isinstance(settings, str) else settings
    arguments: list[str] = []
    for name, value in values.items():
        if value is None:
            continue
        parts = value if isinstance(value, list) else [value]
        arguments += [f"--{name}", *(str(part) for part in parts)]
    return arguments


class _Parser(HfArgumentParser):
    def error(self, message: str) -> Any:
        raise InputError(f"{message}{suggestion(message, self._option_string_actions)}; see `rarft train --help`")


def parser() -> argparse.ArgumentParser:
    """The parser of `rarft train`: every field of `TrainingConfig`, and where other settings come from."""
    usage = "rarft train [--preset NAME] [--config FILE] [--FLAG VALUE ...]"
    result = _Parser(TrainingConfig, prog="rarft train", usage=usage, allow_abbrev=False)
    # Ours and the guide's first, apart from the hundreds that are inherited.
    ours = result.add_argument_group("settings of this trainer")
    ours.add_argument("--preset", help=f"Named settings to start from: {', '.join(preset_names())}.")
    ours.add_argument("--config", help="YAML file of settings; the command line overrides it.")
    for action in list(result._optionals._group_actions):
        if action.dest in TrainingConfig.__annotations__:
            result._optionals._group_actions.remove(action)
            ours._group_actions.append(action)
    result._optionals.title = "settings of TRL and transformers"
    result._action_groups.insert(0, result._action_groups.pop())
    return result


def _renamed(arguments: list[str]) -> list[str]:
    result = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        result.append(_RENAMED.get(name, name) + equals + value)
    return result


def parse(arguments: list[str], anywhere: bool = False) -> dict[str, Any]:
    """Settings from preset, YAML file and command line, checked one by one and not yet as a whole.

    Args:
        arguments: of the command line.
        anywhere: also where this run does not have the machines that its preset is for.

    Raises:
        InputError: an unknown setting or a value that does not fit it, with the setting's name.
    """
    sources = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    sources.add_argument("--preset")
    sources.add_argument("--config")
    named, _ = sources.parse_known_args(arguments)
    collected: list[str] = []
    if named.preset:
        collected += yaml_arguments(preset(named.preset, anywhere), f"preset {named.preset}")
    if named.config:
        path = existing_file(named.config, "--config")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"--config {path}: is no UTF-8 text ({error}); convert the file") from error
        collected += yaml_arguments(text, f"--config {path}")
    settings = vars(parser().parse_args(_renamed([*collected, *arguments])))
    del settings["preset"], settings["config"]
    return settings


def build(settings: dict[str, Any], output_dir: Path) -> TrainingConfig:
    """The configuration as a whole.

    Raises:
        InputError: settings that contradict each other.
    """
    try:
        return TrainingConfig(**{**settings, "output_dir": str(output_dir)})
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(" ".join(str(error).split())) from error
