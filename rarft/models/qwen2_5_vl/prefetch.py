"""Encode prompts ahead of time in threads, while the training step runs."""

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

from rarft.models.qwen2_5_vl.prompt_encoder import Message, PromptEncoder
from rarft.models.qwen2_5_vl.prompt_inputs import PromptInputs


class PromptPrefetcher:
    """Prompts encoded in background threads. Decoding, resizing and patching are native code without the GIL."""

    def __init__(self, encoder: PromptEncoder, workers: int, max_prompts: int) -> None:
        """Use `workers` threads (0: encode a prompt when it is needed) and keep the newest `max_prompts` prompts."""
        self.encoder = encoder
        self._pool = ThreadPoolExecutor(workers, "rarft-decode") if workers else None
        self._max_prompts = max_prompts
        self._pending: OrderedDict[str, Future[PromptInputs]] = OrderedDict()
        self._recent: OrderedDict[str, None] = OrderedDict()

    def prefetch(self, messages: list[Message]) -> None:
        """Start to encode a prompt that will be needed soon.

        A prompt that was returned recently is skipped: it is requested again when its completions are used for several
        steps, which need no encoding.
        """
        key = repr(messages)
        if self._pool is None or key in self._pending or key in self._recent:
            return
        self._pending[key] = self._pool.submit(self.encoder.encode, messages)
        while len(self._pending) > self._max_prompts:
            self._pending.popitem(last=False)[1].cancel()

    def get(self, messages: list[Message]) -> PromptInputs:
        """Return an encoded prompt; raise a `VideoError` if its video cannot be read."""
        key = repr(messages)
        self._recent[key] = None
        while len(self._recent) > self._max_prompts:
            self._recent.popitem(last=False)
        future = self._pending.pop(key, None)
        return self.encoder.encode(messages) if future is None else future.result()
