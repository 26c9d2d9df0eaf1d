"""Completions by a server with vLLM's OpenAI-compatible API, which gets decoded frames with their times.

A server that reads a video file by itself would sample and resize it by other rules (see docs/serving.md).
"""

import base64
import io
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any

from PIL import Image

from rarft.errors import InputError
from rarft.models.qwen2_5_vl.prompt_encoder import Message
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.vllm_rollout import check_prompt, processor_options
from rarft.redaction import redact

_TIMEOUT_S = 600.0
_MAX_BODY = 100_000  # bytes of an error that are read


def _data_url(prompt: PromptInputs) -> str:
    """Return the frames as PNG, which is lossless. vLLM names a list of images in any format `video/jpeg`."""
    pixels_THWC = prompt.frames.pixels_TCHW.permute(0, 2, 3, 1).numpy()  # type: ignore[union-attr]
    encoded = []
    for pixels_HWC in pixels_THWC:
        file = io.BytesIO()
        Image.fromarray(pixels_HWC).save(file, "PNG", compress_level=1)
        encoded.append(base64.b64encode(file.getvalue()).decode())
    return "data:video/jpeg;base64," + ",".join(encoded)


def make_request(messages: list[Message], prompt: PromptInputs, generation: dict[str, Any]) -> dict[str, Any]:
    """Return the body of a chat completion without the model's name.

    Args:
        messages: Conversation of `video_prompt`.
        prompt: Its inputs with their frames.
        generation: `max_new_tokens`, and `suppressed` token ids.
    """
    options = processor_options(prompt)
    video = {"type": "video_url", "video_url": {"url": _data_url(prompt)}}
    turns = [
        {**turn, "content": [video if part["type"] == "video" else part for part in turn["content"]]}
        for turn in messages
    ]
    return {
        "messages": turns,
        "mm_processor_kwargs": options,
        "max_tokens": generation["max_new_tokens"],
        # The server would take omitted values from the checkpoint, such as a repetition penalty.
        "temperature": 0.0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "logit_bias": {str(token): -100.0 for token in generation["suppressed"]},
        "return_token_ids": True,
    }


class EndpointBackend:
    """Greedy generation by a server.

    Args:
        url: URL of the server, with or without `/v1`.
        generation: As in `make_request`.

    Raises:
        InputError: The server cannot be reached, or serves no model.
    """

    keeps_frames = True

    def __init__(self, url: str, generation: dict[str, Any]) -> None:
        self._url, self._generation = url.rstrip("/").removesuffix("/v1"), generation
        try:
            self._model = self._call("models")["data"][0]["id"]
        except (LookupError, TypeError) as error:
            raise InputError(f"--endpoint {url}: serves no model; start it with `vllm serve CHECKPOINT`") from error

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._url}/v1/{path}", data, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
                return json.load(response)
        except urllib.error.HTTPError as error:
            reason = redact(error.read(_MAX_BODY).decode(errors="replace"))[:500]
            raise InputError(f"--endpoint {self._url}: HTTP {error.code} ({reason}); see the server's log") from error
        except (OSError, ValueError) as error:
            raise InputError(f"--endpoint {self._url}: {error}; check the URL and the server") from error

    def generate(self, prompts: Sequence[tuple[str, PromptInputs]]) -> list[list[int]]:
        """Return the token ids of one completion per prompt."""
        return [self._complete(prompt) for _, prompt in prompts]

    def _complete(self, prompt: PromptInputs) -> list[int]:
        if prompt.messages is None:
            raise ValueError("the prompt has no messages; create its encoder with keep_frames=True")
        reply = self._call(
            "chat/completions", {"model": self._model, **make_request(prompt.messages, prompt, self._generation)}
        )
        check_prompt(prompt, reply["prompt_token_ids"])
        return list(reply["choices"][0]["token_ids"])
