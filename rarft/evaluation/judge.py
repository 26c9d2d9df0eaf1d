"""Optional judge: a language model behind an OpenAI-compatible endpoint that rates every completion.

It rates how well the reasoning supports the answer (0 to 5), and names the mismatch categories that a refusal states.
It sees the query and the completion, never the video or the truth, so it cannot be biased by the truth. Verdicts are
cached on disk by request. A malformed reply is requested once more and then counted as failed.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

import msgspec

from rarft.annotations.schema import CATEGORIES
from rarft.errors import InputError, input_name
from rarft.evaluation.predictions import Prediction
from rarft.evaluation.scored_predictions import ScoredPrediction
from rarft.progress import progress
from rarft.storage.hashing import hash_text
from rarft.storage.sqlite_cache import SqliteCache, user_cache

_KEY = "OPENAI_API_KEY"
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
    consistency: int
    categories: list[str]


def _parse(text: str) -> _Verdict:
    """Parse a reply strictly.

    Raises:
        ValueError: The reply is malformed.
    """
    try:
        verdict = msgspec.json.decode(text.strip(), type=_Verdict)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    if not 0 <= verdict.consistency <= 5 or not set(verdict.categories) <= CATEGORIES:
        raise ValueError("a value is out of range")
    return verdict


@dataclass
class JudgeCounts:
    """Requests and tokens that judging took.

    Attributes:
        asked: Replies received.
        cached: Completions whose verdict was in the cache.
        failed: Completions without a verdict: no reply in time, or two malformed ones.
        prompt_tokens: Prompt tokens, as counted by the endpoint.
        completion_tokens: Completion tokens, as counted by the endpoint.
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
        self, url: str, model: str, cache: Path | None = None, concurrency: int = 8, timeout: float = 60.0
    ) -> None:
        """
        Args:
            url: URL of the endpoint, such as http://localhost:8000/v1; OPENAI_API_KEY holds its key.
            model: Model that the endpoint serves.
            cache: SQLite file of verdicts; None for the user's cache folder.
            concurrency: Maximum number of simultaneous requests.
            timeout: Timeout of a request, in seconds.

        Raises:
            InputError: The openai package is not installed, or the cache cannot be opened.
        """
        try:
            import openai
        except ImportError as error:
            raise InputError("judge: openai is not installed; run `pip install rarft[judge]`") from error
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=url, api_key=os.environ.get(_KEY) or "none", timeout=timeout, max_retries=_MAX_RETRIES
        )
        self._url, self._model, self._concurrency = url, model, concurrency
        with input_name("--judge-cache"):
            self._cache = SqliteCache(cache or user_cache("judge.sqlite"))
        self.counts = JudgeCounts()
        self.failure = ""
        self._consecutive_failures = 0
        self._lock = Lock()

    def check(self) -> None:
        """Check, at no cost, that the endpoint responds and accepts the key.

        Raises:
            InputError: It does not.
        """
        try:
            self._client.models.list()
        except self._openai.OpenAIError as error:
            self._raise_if_permanent(error)

    def _raise_if_permanent(self, error: Exception) -> None:
        """Raise an error that every request would meet; ignore others.

        Raises:
            InputError: The endpoint cannot be reached, or rejects the key.
        """
        if isinstance(error, self._openai.AuthenticationError | self._openai.PermissionDeniedError):
            raise InputError(f"judge {self._url}: rejected the API key; set {_KEY}") from error
        if isinstance(error, self._openai.APIConnectionError) and not isinstance(error, self._openai.APITimeoutError):
            raise InputError(f"judge {self._url}: cannot be reached ({error}); check the URL") from error

    def _count(self, usage: Any) -> None:
        """Count a reply and its tokens, if the endpoint reports them."""
        with self._lock:
            self.counts.asked += 1
            if usage:
                self.counts.prompt_tokens += usage.prompt_tokens or 0
                self.counts.completion_tokens += usage.completion_tokens or 0

    def _record_failure(self, failure: str) -> None:
        self.failure = self.failure or " ".join(failure.split())[:300]

    def _request(self, question: str) -> str | None:
        """Return a well-formed reply; None after two malformed ones."""
        for _ in range(2):
            reply = self._client.chat.completions.create(
                model=self._model,
                temperature=0,
                messages=[{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}],
            )
            try:
                self._count(reply.usage)
                text: str = reply.choices[0].message.content
                _parse(text)
                return text
            except (ValueError, AttributeError, TypeError, IndexError) as error:
                self._record_failure(f"malformed reply ({error})")
        return None

    def _request_first(self, question: str) -> str | None:
        """Send the first request, which shows whether the endpoint can be used at all.

        Raises:
            InputError: The endpoint cannot be reached, rejects the key, or does not serve the model.
        """
        try:
            return self._request(question)
        except self._openai.NotFoundError as error:
            raise InputError(f"judge {self._url}: does not serve {self._model} ({error}); check the name") from error
        except (self._openai.OpenAIError, ValueError) as error:
            self._raise_if_permanent(error)
            self._record_failure(str(error))
            return None

    def _request_next(self, question: str) -> str | None:
        if self._consecutive_failures >= _MAX_CONSECUTIVE_FAILURES:
            return None
        try:
            reply = self._request(question)
            self._consecutive_failures = 0
            return reply
        except (self._openai.OpenAIError, ValueError) as error:  # after the retries of the client
            self._record_failure(str(error))
            self._consecutive_failures += 1
            return None

    def _request_all(self, questions: Sequence[str]) -> Iterator[str | None]:
        if questions:
            yield self._request_first(questions[0])
        with ThreadPoolExecutor(self._concurrency) as pool:
            yield from pool.map(self._request_next, questions[1:])

    def judge(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """Return the predictions with verdicts; those without a usable reply stay as they are.

        Raises:
            InputError: The endpoint cannot be used.
        """
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
