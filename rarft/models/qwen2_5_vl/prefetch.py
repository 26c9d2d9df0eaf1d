"""Prompts whose videos are read ahead, by threads beside the training step."""

from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor

from rarft.models.qwen2_5_vl.prompt_encoder import Message, PromptEncoder, PromptInputs


class PromptPrefetcher:
    """Encodes prompts, beforehand where it was told of them in time.

    Decoding, resizing and patching are native code that lets other threads run.

    Attributes:
        encoder: reads one prompt.
    """

    def __init__(self, encoder: PromptEncoder, workers: int, most: int) -> None:
        """
        Args:
            encoder: reads one prompt.
            workers: threads; 0: every prompt is read when it is wanted.
            most: prompts held at a time; of more, the oldest are forgotten.
        """
        self.encoder = encoder
        self._pool = ThreadPoolExecutor(workers, "rarft-decode") if workers else None
        self._most = most
        self._ahead: OrderedDict[str, Future[PromptInputs]] = OrderedDict()
        self._taken: OrderedDict[str, None] = OrderedDict()

    def announce(self, messages: list[Message]) -> None:
        """Begin to read a prompt that will be wanted soon.

        A prompt that was taken just now is announced again when its completions are used for several steps, and
        is not read for that.
        """
        key = repr(messages)
        if self._pool is None or key in self._ahead or key in self._taken:
            return
        self._ahead[key] = self._pool.submit(self.encoder.encode, messages)
        while len(self._ahead) > self._most:
            self._ahead.popitem(last=False)[1].cancel()

    def take(self, messages: list[Message]) -> PromptInputs:
        """The encoded prompt.

        Raises:
            VideoError: its video cannot be read.
        """
        key = repr(messages)
        self._taken[key] = None
        while len(self._taken) > self._most:
            self._taken.popitem(last=False)
        future = self._ahead.pop(key, None)
        return self.encoder.encode(messages) if future is None else future.result()
