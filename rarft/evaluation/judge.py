"""Optional judge: a language model behind an OpenAI-compatible endpoint that rates every completion.

It rates how well the reasoning supports the answer (0 to 5), and names the mismatch categories that a refusal states.
It sees the query and the completion, never the video or the truth, so it cannot be biased by the truth. Verdicts are
cached on disk by request. A malformed reply is requested once more and then counted as failed.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock
from typing import Annotated

import msgspec

from rarft.annotations.schema import CATEGORIES
from rarft.chat import ChatClient
from rarft.errors import input_name
from rarft.evaluation.predictions import Prediction
from rarft.evaluation.scored_predictions import ScoredPrediction
from rarft.progress import progress
from rarft.redaction import redact
from rarft.storage.files import local_path
from rarft.storage.hashing import hash_text
from rarft.storage.sqlite_cache import SqliteCache, default_cache

_MAX_RETRIES = 4  # per request, with exponential backoff, by the client
_MAX_CONSECUTIVE_FAILURES = 50  # then the remaining requests are skipped and counted as failed
_SYSTEM = f"""You check the reply of a system that looks for the moment in a video that a query describes.
You see the query and the reply. The reply holds reasoning in <think>, an answer, and a corrected query or NIL. The \
answer is either a time span in seconds, or a refusal that explains why no moment of the video fits.
Return one JSON object and nothing else: {{"consistency": N, "categories": [...]}}
consistency: a whole number from 0 to 5. 5: the reasoning leads to the answer, step by step, without contradiction. \
3: it fits the answer but leaves gaps. 0: there is no reasoning, or it contradicts the answer.
categories: for a refusal, every way in which the query mismatches the video according to the reply, out of: \
{", ".join(sorted(CATEGORIES))}. For an answer with a time span: an empty list."""


class _Verdict(msgspec.Struct, forbid_unknown_fields=True):
    consistency: Annotated[int, msgspec.Meta(ge=0, le=5)]
    categories: list[str]

    def __post_init__(self) -> None:
        if unknown := set(self.categories) - CATEGORIES:
            raise ValueError(f"unknown category {min(unknown)}")


_parse = msgspec.json.Decoder(_Verdict).decode


@dataclass
class JudgeCounts:
    """Requests and tokens that judging took.

    Attributes:
        asked: Replies received.
        cached: Completions whose verdict was in the cache.
        failed: Completions without a verdict: no reply in time, or two malformed ones.
        prompt_tokens, completion_tokens: As counted by the endpoint.
    """

    asked: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def cost(self, prices: tuple[float, float] | None) -> float | None:
        """Return US dollars from prices per million prompt and completion tokens; None if they are unknown."""
        if prices is None:
            return None
        return (self.prompt_tokens * prices[0] + self.completion_tokens * prices[1]) / 1e6


class Judge:
    """A client of the endpoint that sends several requests at a time.

    Attributes:
        counts: Requests and tokens so far.
        failure: Description of the first failure; empty if there is none.
    """

    def __init__(
        self, url: str, model: str, cache: str | None = None, concurrency: int = 8, timeout: float = 60.0
    ) -> None:
        """
        Args:
            url: URL of the endpoint, such as http://localhost:8000/v1; OPENAI_API_KEY holds its key.
            model: Model that the endpoint serves.
            cache: SQLite file of verdicts; None for the user's cache folder.
            concurrency: Maximum number of simultaneous requests.
            timeout: Seconds per request.

        Raises:
            InputError: The openai package is not installed, or the cache cannot be opened.
        """
        self._client = ChatClient("judge", "judge", url, model, timeout, _MAX_RETRIES)
        self._model, self._concurrency = model, concurrency
        with input_name("--judge-cache"):
            self._cache = SqliteCache(local_path(cache) if cache else default_cache("judge.sqlite"))
        self.counts = JudgeCounts()
        self.failure = ""
        self._consecutive_failures = 0
        self._lock = Lock()

    def check(self) -> None:
        """Check, at no cost, that the endpoint responds and accepts the key; raise an InputError if it does not."""
        self._client.check()

    def _record_failure(self, failure: str) -> None:
        self.failure = self.failure or " ".join(redact(failure).split())[:300]

    def _ask(self, question: str) -> str | None:
        """Return a well-formed reply; None after two malformed ones."""
        for _ in range(2):
            reply = self._client.create_completion(_SYSTEM, question)
            with self._lock:
                self.counts.asked += 1
                self.counts.prompt_tokens += reply.prompt_tokens or 0  # not every endpoint reports them
                self.counts.completion_tokens += reply.completion_tokens or 0
            try:
                if reply.text is None:
                    raise ValueError("no content")
                _parse(reply.text)
                return reply.text
            except ValueError as error:
                self._record_failure(f"malformed reply ({error})")
        return None

    def _request(self, question: str, is_first: bool = False) -> str | None:
        """Return a reply, or None; the first request raises an InputError if the endpoint cannot be used at all."""
        if self._consecutive_failures >= _MAX_CONSECUTIVE_FAILURES:
            return None
        try:
            reply = self._ask(question)
            self._consecutive_failures = 0
            return reply
        except (self._client.openai.OpenAIError, ValueError) as error:  # after the retries of the client
            if is_first:
                self._client.raise_if_permanent(error)
            self._record_failure(str(error))
            self._consecutive_failures += 1
            return None

    def _request_all(self, questions: Sequence[str]) -> Iterator[str | None]:
        if questions:
            yield self._request(questions[0], is_first=True)
        with ThreadPoolExecutor(self._concurrency) as pool:
            yield from pool.map(self._request, questions[1:])

    def judge(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return the predictions with verdicts; those without a usable reply stay as they are."""
        questions = [f"Query: {row.sample.query}\n\nReply:\n{row.completion}" for row in predictions]
        keys = [hash_text(self._model, _SYSTEM, question) for question in questions]
        replies = {key: reply for key in keys if (reply := self._cache.get(key)) is not None}
        self.counts.cached += sum(key in replies for key in keys)
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in replies}
        requests = progress(
            self._request_all(list(missing.values())), "judging", total=len(missing), unit=" completions"
        )
        for key, reply in zip(missing, requests, strict=True):
            if reply is not None:
                replies[key] = reply
                self._cache.put({key: reply})
        self.counts.failed += sum(key not in replies for key in keys)
        return [
            _with_verdict(row, _parse(replies[key])) if key in replies else row
            for row, key in zip(predictions, keys, strict=True)
        ]


def _with_verdict(prediction: Prediction, verdict: _Verdict) -> Prediction:
    refusable = prediction.sample.task_type == "refusable"
    categories = verdict.categories if refusable and ScoredPrediction(prediction).is_true_negative else []
    return msgspec.structs.replace(
        prediction, consistency=verdict.consistency, categories=sorted(set(categories)) if refusable else None
    )
