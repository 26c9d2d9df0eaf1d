"""Check a chat template before the model is loaded: it must keep the query and show exactly one video."""

import logging
import secrets
from collections.abc import Sequence

from rarft.annotations.schema import Sample
from rarft.errors import InputError
from rarft.models.qwen2_5_vl.prompt_encoder import PromptEncoder, video_prompt
from rarft.prompts import fill_prompt

_PROMPTS = 2  # rendered for the check
logger = logging.getLogger(__name__)


def check_prompts(samples: Sequence[Sample], encoder: PromptEncoder, template: str, model: str) -> None:
    """Render the first prompts with a random text instead of the query, and look for it and for the video.

    Raises:
        InputError: The query is missing or repeated, or the prompt does not have exactly one video whose tokens match
            its grid.
    """
    copies = template.count("{query}")
    if copies > 1:
        logger.warning("the prompt template contains {query} %d times; every prompt repeats the query", copies)
    for sample in samples[:_PROMPTS]:
        sentinel = f"query{secrets.token_hex(8)}"
        texts = fill_prompt(template, sentinel, sample.duration, sample.crop)
        messages = video_prompt(*texts, sample.video, sample.crop)
        rendered = encoder.render(messages)
        if (count := rendered.count(sentinel)) != copies:
            raise InputError(
                f"{model}: its chat template renders the query {count} times instead of {copies}; use the "
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
        except ValueError as error:  # the video's tokens and its grid do not match
            raise InputError(f"{model}: {error}; use the processor of an official Qwen2.5-VL checkpoint") from error
