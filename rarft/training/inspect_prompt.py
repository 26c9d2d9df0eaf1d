"""Description of what the model reads for one query, with the settings of a training run; needs no weights."""

import argparse
import re
from typing import NoReturn

from transformers import AutoConfig

from rarft.annotations.schema import Sample, read_samples
from rarft.checkpoint.source import check_checkpoint, checkpoint_path
from rarft.errors import InputError, input_name
from rarft.models.qwen2_5_vl.load import download_checkpoint, load_processor
from rarft.models.qwen2_5_vl.prompt_check import check_prompts
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.prompts import load_prompt_template
from rarft.storage.files import local_path
from rarft.training.config import frame_sampling
from rarft.training.data import make_row
from rarft.training.preflight import check_train_data_given
from rarft.training.settings_parser import parse_settings
from rarft.video.decode import Frames

_EDGE = 4  # times shown at either end of a long list


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see `rarft inspect-prompt --help`")


def _parse_id(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options with `--id`, and the flags of `rarft train`."""
    parser = _Parser(
        prog="rarft inspect-prompt",
        usage="%(prog)s --model_name_or_path M --train_data_path RIQ [--id ID] [flags of `rarft train`]",
        description="Show what the model reads for one query.",
        allow_abbrev=False,
    )
    parser.add_argument("--id", help="ID of the query in riq.jsonl (default: the first query)")
    return parser.parse_known_args(arguments)


def inspect_prompt(arguments: list[str]) -> str:
    """Describe the prompt of one query: its text, frames and their times, tokens and positions.

    The arguments are `--id` of the query (default: the first), and flags of `rarft train`.
    """
    options, training_flags = _parse_id(arguments)
    settings = parse_settings(training_flags, check_gpus=False)
    check_train_data_given(settings)
    name = settings["model_name_or_path"]
    with input_name("--model_name_or_path"):
        check_checkpoint(name)
    with input_name("--prompt_type"):
        template = load_prompt_template(settings["prompt_type"])
    with input_name("--train_data_path"):
        samples = read_samples(settings["train_data_path"])
    sample = next((sample for sample in samples if options.id in (None, sample.id)), None)
    if sample is None:
        raise InputError(f"--id {options.id}: no such query; use a value of `id` in riq.jsonl of --train_data_path")
    sampling = frame_sampling(settings)
    with input_name("--work_dir"):
        work_dir = local_path(settings["work_dir"])
    with input_name("--model_name_or_path"):
        model = download_checkpoint(name, work_dir)
        config = AutoConfig.from_pretrained(checkpoint_path(model))
        encoder = PromptEncoder(load_processor(model), config, sampling)
        check_prompts([sample], encoder, template, name)
    messages = make_row(sample, template)["prompt"]
    frames = encoder.read_video(messages)
    return _describe(sample, frames, encoder.build_inputs(messages, frames), encoder)


def _describe(sample: Sample, frames: Frames, prompt: PromptInputs, encoder: PromptEncoder) -> str:
    tokenizer = encoder.processor.tokenizer
    ids_L, positions_3L = prompt.input_ids_L, prompt.position_ids_3L
    video = (ids_L == encoder.video_token_id).nonzero().flatten().tolist()
    marker = tokenizer.decode([encoder.video_token_id])
    text = re.sub(
        f"(?:{re.escape(marker)})+", f"{marker} x {len(video)}", tokenizer.decode(ids_L, skip_special_tokens=False)
    )
    height, width = frames.pixels_TCHW.shape[-2:]
    grid = " x ".join(map(str, prompt.grid_thw_13[0].tolist()))
    times = [f"{time:.2f}" for time in frames.timestamps_T.tolist()]
    if len(times) > 3 * _EDGE:
        times[_EDGE:-_EDGE] = ["..."]
    first, start, end, last = (tuple(positions_3L[:, index].tolist()) for index in (0, video[0], video[-1], -1))
    return "\n".join(
        [
            f"query:      {sample.id}, {sample.task_type}, item {sample.source.item} of {sample.source.file}",
            f"video:      {sample.video}" + (f", crop {sample.crop[0]} to {sample.crop[1]} s" if sample.crop else ""),
            f"frames:     {len(frames.indices)}, {height} x {width} pixels (height x width)",
            f"times (s):  {', '.join(times)}",
            f"tokens:     {ids_L.numel() - len(video)} text + {len(video)} video = {ids_L.numel()}",
            f"grid:       {grid} patches (time x height x width)",
            f"positions:  (time, height, width) {first} first token, {start} to {end} video, {last} last token",
            "prompt:",
            text,
        ]
    )
