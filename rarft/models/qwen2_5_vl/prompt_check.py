"""Check, before a model is loaded, that its chat template keeps the query and shows one video."""

import logging
import secrets
from collections.abc import Sequence

from rarft.annotations.schema import Sample
from rarft.errors import InputError
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt
from rarft.prompts import fill_prompt

_ROWS = 2  # prompts that are rendered
_log = logging.getLogger(__name__)


def check_prompts(samples: Sequence[Sample], encoder: PromptEncoder, template: str, model: str) -> None:
    """Render the first prompts with a random text instead of the query, and look for it and for the video.

    Args:
        samples: the data.
        encoder: of the model's processor.
        template: the prompt template.
        model: the flag that named the model and its value, for messages.

    Raises:
        InputError: the query is missing or repeated, or the prompt has not exactly one video, whose tokens fill its
            grid.
    """
    copies = template.count("{query}")
    if copies > 1:
        _log.warning("the prompt template has {query} %d times; the query is repeated in every prompt", copies)
    for sample in samples[:_ROWS]:
        sentinel = f"query{secrets.token_hex(8)}"
        texts = fill_prompt(template, sentinel, sample.duration, sample.crop)
        messages = video_prompt(*texts, sample.video, sample.crop)
        rendered = encoder.render(messages)
        if (found := rendered.count(sentinel)) != copies:
            raise InputError(
                f"{model}: its chat template renders the query {found} times instead of {copies}; use the "
                "chat_template.jinja of an official Qwen2.5-VL checkpoint"
            )
        videos = encoder.processor.tokenizer(rendered)["input_ids"].count(encoder.video_token_id)
        if videos != 1:
            raise InputError(
                f"{model}: its chat template renders {videos} videos into a prompt that has one; use the "
                "chat_template.jinja of an official Qwen2.5-VL checkpoint, and no video token in the prompt's text"
            )
        try:
            encoder.placeholder_inputs(messages)
        except ValueError as error:  # the tokens and the grid of the video disagree
            raise InputError(f"{model}: {error}; use the processor of an official Qwen2.5-VL checkpoint") from error
