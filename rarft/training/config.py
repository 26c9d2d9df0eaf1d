"""Every setting of a training run, with the guide's defaults.

Settings come from a named preset, then a YAML file (`--config`), then the command line; the later wins. They
are read as text first and become a `TrainingConfig` only in `build`, because making one may set up DeepSpeed,
and the sentence encoder must be loaded before that.
"""

import argparse
import copy
import functools
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml
from transformers import HfArgumentParser
from trl import GRPOConfig

from rarft.distributed.launch import world_size
from rarft.embeddings.encoder import DEFAULT_ENCODER
from rarft.errors import InputError, did_you_mean, suggest_flag
from rarft.rewards.columns import DEFAULT_REWARDS
from rarft.storage.files import existing_file
from rarft.training.deepspeed_config import deepspeed_file
from rarft.training.tracking import resolve_report_to
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
# The guide's `--max_pixels`: its default means the published budget, and half of it means half the budget (D22).
_DEFAULT_MAX_PIXELS = 12_845_056
# Names that the guide uses and transformers has dropped.
_RENAMED = {"--evaluation_strategy": "--eval_strategy"}
_NULL = "null"  # None, as written on the command line
_SWITCHES = {"on": "true", "off": "false"}  # also booleans in YAML
# Settings that take the path of a JSON file where others take a mapping alone.
_FILES = {"accelerator_config", "fsdp_config"}
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
            "help": "pair: each epoch asks one answerable and one refusable query per item, drawn again; "
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
        self.report_to = resolve_report_to(self.report_to)
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
    folder = resources.files("rarft.training").joinpath("presets")
    return sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml"))


class _YamlLoader(yaml.SafeLoader):
    """Reads 1e-5 as a number, as YAML 1.2 does; YAML 1.1 wants 1.0e-5."""


_YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def _as_written(name: str, node: yaml.Node) -> str:
    """Return the text of a scalar, so that 1.10 or `no` mean in YAML what they mean on the command line."""
    if not isinstance(node, yaml.ScalarNode):
        raise InputError(f"{name}: must be a list of single values")
    return _NULL if node.tag == "tag:yaml.org,2002:null" else str(node.value)


def _read_yaml(text: str) -> dict[str, Any]:
    """Return settings by name: the text of a scalar, a list of texts, or a mapping.

    Raises:
        InputError: `text` is not a YAML mapping.
    """
    loader = _YamlLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return {}
        if not isinstance(root, yaml.MappingNode):
            raise InputError("must map settings to values, such as `beta: 0.05`")
        loader.flatten_mapping(root)
        values: dict[str, Any] = {}
        for key, node in root.value:
            name = _as_written("keys", key)
            if isinstance(node, yaml.SequenceNode):
                values[name] = [_as_written(name, item) for item in node.value]
            elif isinstance(node, yaml.MappingNode):
                values[name] = loader.construct_object(node, deep=True)
            else:
                values[name] = _as_written(name, node)
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that does not exist
        raise InputError(f"invalid YAML ({' '.join(str(error).split())})") from error
    return values


def preset(name: str, anywhere: bool = False) -> dict[str, Any]:
    """The settings of a packaged preset.

    Args:
        name: of the preset.
        anywhere: also where this run does not have the machines that it is for.

    Raises:
        InputError: one for other machines than this run has.
    """
    file = resources.files("rarft.training").joinpath("presets", f"{name}.yaml")
    settings = _read_yaml(file.read_text(encoding="utf-8"))
    gpus = int(settings.pop("gpus", 1))
    if not anywhere and world_size() % gpus:
        raise InputError(
            f"--preset {name}: is for machines of {gpus} GPUs, and this run has {world_size()} process(es); "
            f"start it by torchrun --nproc_per_node {gpus}, or choose another preset"
        )
    return settings


def arguments_of(settings: Mapping[str, Any]) -> list[str]:
    """Convert settings to command-line arguments: a mapping to JSON; None is left out."""
    arguments: list[str] = []
    for name, value in settings.items():
        if isinstance(value, list):
            arguments += [f"--{name}", *map(str, value)]
        elif value is not None:
            text = json.dumps(value, default=str) if isinstance(value, dict) else value
            arguments.append(f"--{name}={text}")
    return arguments


def _check_shapes(settings: Mapping[str, Any]) -> None:
    """Check that each name is a setting, and that it takes the mapping, the list or the null that it is given.

    Raises:
        InputError: it is not, or does not.
    """
    options, kinds = parser()._option_string_actions, _kinds()
    for name, value in settings.items():
        flag = _RENAMED.get(f"--{name}", f"--{name}")
        if flag not in options:
            raise InputError(f"{name}: no such setting{did_you_mean(flag, options).replace('--', '')}")
        takes = kinds.get(options[flag].dest, (str,))
        wanted = "a mapping" if dict in takes else "a list" if options[flag].nargs == "+" else "one value"
        if isinstance(value, dict) and dict not in takes:
            raise InputError(f"{name}: must be {wanted}, not a mapping")
        if isinstance(value, list) and options[flag].nargs != "+":
            raise InputError(f"{name}: must be {wanted}, not a list")
        if value == _NULL and type(None) not in takes:
            raise InputError(f"{name}: must be {wanted}, not null; leave the setting out for its default")


def yaml_arguments(text: str, source: str) -> list[str]:
    """Convert a YAML text of settings to command-line arguments, and check them one by one.

    A job's pods get their settings as arguments, so each kind of value has a form as one: a mapping is JSON.

    Args:
        text: YAML mapping of settings.
        source: what the user typed to give it, for messages.

    Raises:
        InputError: not a YAML mapping, an unknown setting, or a value that does not fit it.
    """
    try:
        settings = _read_yaml(text)
        _check_shapes(settings)
        arguments = arguments_of(settings)
        _parsed(arguments)
    except InputError as error:
        raise InputError(f"{source}: {str(error).removeprefix('--')}") from error
    return arguments


@functools.cache
def _kinds() -> dict[str, tuple[Any, ...]]:
    """Return the types that each field of `TrainingConfig` takes: of `dict[str, Any] | None`, dict and NoneType."""
    kinds = {}
    for name, hint in get_type_hints(TrainingConfig).items():
        members = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        kinds[name] = tuple(get_origin(join_path) or join_path for join_path in members)
    return kinds


def _reader(name: str, kinds: tuple[Any, ...], convert: Callable[[str], Any]) -> Callable[[str], Any]:
    """Extend argparse's conversion of one value: `null`, `on` and `off`, and JSON for a mapping."""

    @functools.wraps(convert, updated=())
    def read(text: str) -> Any:
        if text == _NULL and type(None) in kinds:
            return None
        if bool in kinds:
            return convert(_SWITCHES.get(text.lower(), text))
        if dict not in kinds or (name in _FILES and Path(text).is_file()):
            return convert(text)
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise argparse.ArgumentTypeError(f'must be a mapping in JSON, such as {{"key": 1}}, not {text}')
        return value

    return read


class _Parser(HfArgumentParser):
    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if value is not None:  # None was written as `null`, which is allowed here
            super()._check_value(action, value)

    def error(self, message: str) -> Any:
        message = re.sub(r"^argument (--\w+)[^:]*:", r"\1:", message)
        raise InputError(f"{message}{suggest_flag(message, self._option_string_actions)}; see `rarft train --help`")


@functools.cache
def parser() -> argparse.ArgumentParser:
    """The parser of `rarft train`: every field of `TrainingConfig`, and where other settings come from."""
    usage = "rarft train [--preset NAME] [--config FILE] [--FLAG VALUE ...]"
    result = _Parser(
        TrainingConfig, prog="rarft train", usage=usage, allow_abbrev=False,
        epilog="A flag that takes a mapping reads JSON: --gradient_checkpointing_kwargs '{\"use_reentrant\": false}'.",
    )  # fmt: skip
    kinds = _kinds()
    for action in result._actions:
        if action.type is not None:
            action.type = _reader(action.dest, kinds[action.dest], action.type)
    # Ours and the guide's first, apart from the hundreds that are inherited.
    ours = result.add_argument_group("settings of this trainer")
    ours.add_argument("--preset", choices=preset_names(), help="Named settings to start from.")
    ours.add_argument("--config", help="YAML file of settings; the command line overrides it.")
    for action in list(result._optionals._group_actions):
        if action.dest in TrainingConfig.__annotations__:
            result._optionals._group_actions.remove(action)
            ours._group_actions.append(action)
    result._optionals.title = "settings of TRL and transformers"
    result._action_groups.insert(0, result._action_groups.pop())
    return result


def _parsed(arguments: list[str]) -> argparse.Namespace:
    """Parse arguments, each of them checked by itself."""
    renamed = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        renamed.append(_RENAMED.get(name, name) + equals + value)
    return parser().parse_args(renamed)


def parse(arguments: list[str], anywhere: bool = False) -> dict[str, Any]:
    """Settings from preset, YAML file and command line, checked one by one and not yet as a whole.

    Args:
        arguments: of the command line.
        anywhere: also where this run does not have the machines that its preset is for.

    Raises:
        InputError: an unknown setting or a value that does not fit it, with the setting's name.
    """
    given = _parsed(arguments)
    if given.config:
        path = existing_file(given.config, "--config")
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"--config {path}: not valid UTF-8 ({error}); convert the file") from error
        from_file = yaml_arguments(text, f"--config {path}")
        if _parsed(from_file).config:
            raise InputError(f"--config {path}: config: a file of settings cannot name another; merge the two")
        arguments = [*from_file, *arguments]
        given = _parsed(arguments)
    if given.preset:
        arguments = [*arguments_of(preset(given.preset, anywhere)), *arguments]
    settings = copy.deepcopy(vars(_parsed(arguments)))  # defaults that are lists are the parser's own
    del settings["preset"], settings["config"]
    # `null` for a setting that takes a list was read as one of its values.
    return {name: None if value == [None] else value for name, value in settings.items()}


def build(settings: dict[str, Any], output_dir: Path) -> TrainingConfig:
    """The configuration as a whole.

    Raises:
        InputError: settings that contradict each other.
    """
    try:
        return TrainingConfig(**{**settings, "output_dir": str(output_dir)})
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(" ".join(str(error).split())) from error
