"""Show what the model reads for one query, with the settings of a training run; needs no weights."""

import argparse
import re
from typing import Any, NoReturn

from torch import Tensor
from transformers import AutoConfig

from rarft.annotations.schema import Sample, read_samples
from rarft.checkpoint.locate import check_checkpoint, checkpoint_path
from rarft.errors import InputError, input_name
from rarft.models.qwen2_5_vl.load import download_checkpoint, load_processor
from rarft.models.qwen2_5_vl.prompt_check import check_prompts
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.prompts import load_prompt_template
from rarft.storage.files import local_path
from rarft.training import config as configuration
from rarft.training.data import row
from rarft.video.decode import Frames

_EDGE = 4  # times shown at either end of a long list


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `rarft inspect-prompt --help`")


def _choose(samples: list[Sample], wanted: str | None) -> Sample:
    if wanted is None:
        return samples[0]
    for sample in samples:
        if sample.id == wanted:
            return sample
    raise InputError(f"--id {wanted}: no such query in --train_data_path; ids are in its riq.jsonl, field `id`")


def _times(frames: Frames) -> str:
    times = [f"{index / frames.file_fps:.2f}" for index in frames.indices]
    if len(times) > 3 * _EDGE:
        times[_EDGE:-_EDGE] = ["..."]
    return ", ".join(times)


def _position(positions_3L: Tensor, index: int) -> str:
    return "({}, {}, {})".format(*positions_3L[:, index].tolist())


def inspect_prompt(arguments: list[str]) -> str:
    """Describe the prompt of one row: rendered text, frames and their times, tokens and positions.

    Args:
        arguments: `--id` of the row (default: the first), and flags of `rarft train`.

    Raises:
        InputError: settings, data or model that cannot be used.
        VideoError: the row's video cannot be read.
    """
    own = _Parser(
        prog="rarft inspect-prompt",
        usage="%(prog)s --model_name_or_path M --train_data_path RIQ [--id ID] [flags of `rarft train`]",
        description="Show what the model reads for one query.",
        allow_abbrev=False,
    )
    own.add_argument("--id", help="id of the query in riq.jsonl (default: the first query)")
    options, training_flags = own.parse_known_args(arguments)
    settings: dict[str, Any] = configuration.parse(training_flags, anywhere=True)
    if not settings["train_data_path"]:
        raise InputError("--train_data_path is missing; give the riq.jsonl of `rarft validate`")
    name = settings["model_name_or_path"]
    check_checkpoint(name, "--model_name_or_path")
    template = load_prompt_template(settings["prompt_type"])
    with input_name("--train_data_path"):
        samples = read_samples(settings["train_data_path"])
    sample = _choose(samples, options.id)
    with input_name("--model_name_or_path"):
        model = download_checkpoint(name, local_path(settings["scratch"], "--scratch"))
        processor = load_processor(model)
    sampling = configuration.frame_sampling(settings)
    encoder = PromptEncoder(processor, AutoConfig.from_pretrained(checkpoint_path(model)), sampling)
    with input_name("--model_name_or_path"):
        check_prompts([sample], encoder, template, name)
    messages = row(sample, template)["prompt"]
    frames = encoder.read_video(messages)
    prompt = encoder.build_inputs(messages, frames)
    ids_L, positions_3L = prompt.input_ids_L, prompt.position_ids_3L
    video = (ids_L == encoder.video_token_id).nonzero().flatten().tolist()
    marker = processor.tokenizer.decode([encoder.video_token_id])
    text = re.sub(
        f"(?:{re.escape(marker)})+",
        f"{marker} x {len(video)}",
        processor.tokenizer.decode(ids_L, skip_special_tokens=False),
    )
    height, width = frames.pixels_TCHW.shape[-2:]
    grid = " x ".join(map(str, prompt.grid_thw_13[0].tolist()))
    return "\n".join(
        [
            f"query:      {sample.id}, {sample.task_type}, item {sample.source.item} of {sample.source.file}",
            f"video:      {sample.video}" + (f", crop {sample.crop[0]} to {sample.crop[1]} s" if sample.crop else ""),
            f"frames:     {len(frames.indices)}, {height} x {width} pixels (height x width)",
            f"times (s):  {_times(frames)}",
            f"tokens:     {ids_L.numel() - len(video)} text + {len(video)} video = {ids_L.numel()}",
            f"grid:       {grid} patches (time x height x width)",
            f"positions:  (time, height, width) {_position(positions_3L, 0)} first token, "
            f"{_position(positions_3L, video[0])} to {_position(positions_3L, video[-1])} video, "
            f"{_position(positions_3L, -1)} last token",
            "prompt:",
            text,
        ]
    )
