"""Completions by a server with vLLM's OpenAI-compatible API, which gets decoded frames with their times.

A server that reads a video file by itself would sample and resize it by other rules (see docs/serving.md).
"""

import base64
import io
import json
import logging
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from rarft.errors import InputError
from rarft.models.qwen2_5_vl.prompt_encoder import Message
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs
from rarft.models.qwen2_5_vl.vllm_rollout import check_prompt, processor_options
from rarft.redaction import redact

_TIMEOUT_S = 600.0
_MAX_BODY = 100_000  # bytes of an error that are read

logger = logging.getLogger(__name__)


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
        decode: Function that returns the text of token ids.

    Raises:
        InputError: The server cannot be reached, or serves no model.
    """

    keeps_frames = True

    def __init__(self, url: str, generation: dict[str, Any], decode: Callable[[list[int]], str]) -> None:
        self._decode, self._has_logged = decode, False
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
        return [self._complete(prompt)[0] for _, prompt in prompts]

    def sample(self, prompts: Sequence[tuple[str, PromptInputs]], count: int, seed: int) -> list[list[int]]:
        """Return the token ids of `count` sampled completions per prompt, grouped by prompt."""
        options = {"temperature": 1.0, "n": count, "seed": seed}
        return [ids for _, prompt in prompts for ids in self._complete(prompt, **options)]

    def _request(self, prompt: PromptInputs, prefix: str = "") -> dict[str, Any]:
        if prompt.messages is None:
            raise ValueError("the prompt has no messages; create its encoder with keep_frames=True")
        turns = [{"role": "assistant", "content": [{"type": "text", "text": prefix}]}] if prefix else []
        return {"model": self._model, **make_request([*prompt.messages, *turns], prompt, self._generation)}

    def _complete(self, prompt: PromptInputs, **options: Any) -> list[list[int]]:
        reply = self._call("chat/completions", {**self._request(prompt), **options})
        check_prompt(prompt, reply["prompt_token_ids"])
        return [list(choice["token_ids"]) for choice in reply["choices"]]

    def next_logprobs(
        self, prompts: Sequence[tuple[str, PromptInputs]], prefixes: Sequence[list[int]], token_ids: list[int]
    ) -> list[list[float] | None]:
        """Return the log-probabilities of next tokens; None if the server does not return them."""
        return [
            self._next_logprobs(prompt, ids, token_ids) for (_, prompt), ids in zip(prompts, prefixes, strict=True)
        ]

    def _next_logprobs(self, prompt: PromptInputs, prefix: list[int], token_ids: list[int]) -> list[float] | None:
        options = {
            "continue_final_message": True,
            "add_generation_prompt": False,
            "max_tokens": 1,
            "logprobs": True,
            "logprob_token_ids": token_ids,
            "return_tokens_as_token_ids": True,
        }
        problem = "returns no log-probabilities of given tokens (`logprob_token_ids`)"
        try:
            request = {**self._request(prompt, self._decode(prefix)), **options}
            reply = self._call("chat/completions", request)
            found = {
                one["token"]: one["logprob"] for one in reply["choices"][0]["logprobs"]["content"][0]["top_logprobs"]
            }
            if reply["prompt_token_ids"] == [*prompt.input_ids_L.tolist(), *prefix]:
                return [float(found[f"token_id:{token}"]) for token in token_ids]
            problem = "tokenizes the start of the completion differently"
        except (InputError, LookupError, TypeError) as error:
            problem += f" ({error})"
        if not self._has_logged:
            logger.warning("--endpoint %s: %s; refusal scores are missing", self._url, problem)
            self._has_logged = True
        return None
