"""An optional judge: a language model behind an OpenAI-compatible endpoint, asked about every completion.

It says how well the reasoning bears the answer (0 to 5), and of refusals how, by their words, the query mismatches the
video. It sees texts alone, never the video or the truth, so it cannot be kind to a right answer. Answers are kept on
disk by what was asked; what it says out of form is asked for once more and then counted as failed.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from rarft.annotations.schema import CATEGORIES
from rarft.errors import InputError
from rarft.evaluation.predictions import Prediction
from rarft.evaluation.sample_stats import ScoredPrediction
from rarft.progress import progress
from rarft.storage.sqlite_cache import SqliteCache, user_cache

_KEY = "OPENAI_API_KEY"
_RETRIES = 4  # of one request, with growing pauses: the client's own
_GIVE_UP = 50  # requests that fail one after the other: the endpoint is gone, and the rest is counted as failed
_SYSTEM = f"""You check the reply of a system that looks for the moment in a video that a query describes.
You see the query and the reply. The reply holds reasoning in <think>, an answer, and a corrected query or NIL. The \
answer is either a time span in seconds, or a refusal that says why no moment of the video fits.
Return one JSON object and nothing else: {{"consistency": N, "categories": [...]}}
consistency: a whole number from 0 to 5. 5: the reasoning leads to the answer, step by step, without contradiction. \
3: it fits the answer but leaves gaps. 0: there is no reasoning, or it contradicts the answer.
categories: for a refusal, every way in which the reply says that the query mismatches the video, out of: \
{", ".join(sorted(CATEGORIES))}. For an answer with a time span: an empty list."""


class _Verdict(msgspec.Struct, forbid_unknown_fields=True):
    consistency: int
    categories: list[str]


def _parse(text: str) -> _Verdict:
    """Read an answer strictly.

    Raises:
        ValueError: it is not in the form that was asked for.
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
    """What judging took.

    Attributes:
        asked: requests that were answered.
        cached: completions whose verdict was on disk.
        failed: completions without a verdict: no answer in time, or twice out of form.
        prompt_tokens: that the endpoint counted.
        completion_tokens: that the endpoint counted.
    """

    asked: int = 0
    cached: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def cost(self, prices: tuple[float, float] | None) -> float | None:
        """US dollars, from prices per million tokens of prompt and completion; None where they are not known."""
        if prices is None:
            return None
        return (self.prompt_tokens * prices[0] + self.completion_tokens * prices[1]) / 1e6


class Judge:
    """Asks an endpoint, several requests at a time.

    Attributes:
        counts: what it took so far.
        failure: what went wrong first, if anything did.
    """

    def __init__(
        self, url: str, model: str, cache: Path | None = None, concurrency: int = 8, timeout: float = 60.0
    ) -> None:
        """
        Args:
            url: of the endpoint, such as http://localhost:8000/v1; its key is the environment's OPENAI_API_KEY.
            model: that the endpoint serves.
            cache: SQLite file of verdicts; None for the user's cache folder.
            concurrency: requests at a time.
            timeout: seconds that one may take.

        Raises:
            InputError: the openai package is not installed, or the cache cannot be opened.
        """
        try:
            import openai
        except ImportError as error:
            raise InputError("--judge-url: openai is not installed; `pip install rarft[judge]`") from error
        self._openai = openai
        self._client = openai.OpenAI(
            base_url=url, api_key=os.environ.get(_KEY) or "none", timeout=timeout, max_retries=_RETRIES
        )
        self._url, self._model, self._concurrency = url, model, concurrency
        self._cache = SqliteCache(cache or user_cache("judge.sqlite"), "--judge-cache")
        self.counts = JudgeCounts()
        self.failure = ""
        self._unreachable = 0  # requests that failed, one after the other

    def check(self) -> None:
        """Make sure that the endpoint answers and takes the key, at no cost.

        Raises:
            InputError: it does not.
        """
        try:
            self._client.models.list()
        except self._openai.OpenAIError as error:
            self._refuse(error)

    def _refuse(self, error: Exception) -> None:
        """Tell of what makes every request fail; anything else may pass.

        Raises:
            InputError: it cannot be reached, or refuses the key.
        """
        if isinstance(error, self._openai.AuthenticationError | self._openai.PermissionDeniedError):
            raise InputError(f"--judge-url {self._url}: refuses the key; set {_KEY}") from error
        if isinstance(error, self._openai.APIConnectionError) and not isinstance(error, self._openai.APITimeoutError):
            raise InputError(f"--judge-url {self._url}: cannot be reached ({error}); check it, or leave it") from error

    def _ask(self, question: str, usages: list[Any]) -> tuple[str | None, list[Any]]:
        """An answer in form, if one came, and what the endpoint counted for each that came, put into `usages`."""
        for _ in range(2):
            reply = self._client.chat.completions.create(
                model=self._model,
                temperature=0,
                messages=[{"role": "system", "content": _SYSTEM}, {"role": "user", "content": question}],
            )
            try:
                usages.append(reply.usage)
                text = reply.choices[0].message.content
                _parse(text)
            except (ValueError, AttributeError, TypeError, IndexError) as error:
                self._note(f"an answer out of form ({error})")
                continue
            return text, usages
        return None, usages

    def _note(self, failure: str) -> None:
        self.failure = self.failure or " ".join(failure.split())[:300]

    def _answer(self, question: str) -> tuple[str | None, list[Any]]:
        usages: list[Any] = []
        if self._unreachable >= _GIVE_UP:
            return None, usages
        try:
            found = self._ask(question, usages)
            self._unreachable = 0
            return found
        except (self._openai.OpenAIError, ValueError) as error:  # retried by the client: counted, the others go on
            self._note(str(error))
            self._unreachable += 1
            return None, usages

    def _first(self, question: str) -> tuple[str | None, list[Any]]:
        """The first question, whose failure says that the endpoint cannot be used.

        Raises:
            InputError: it cannot be reached, refuses the key, or does not know the model.
        """
        usages: list[Any] = []
        try:
            return self._ask(question, usages)
        except self._openai.NotFoundError as error:
            raise InputError(f"--judge-model {self._model}: is not served at {self._url} ({error})") from error
        except (self._openai.OpenAIError, ValueError) as error:
            self._refuse(error)
            self._note(str(error))
            return None, usages

    def _answers(self, questions: Sequence[str]) -> Iterator[tuple[str | None, list[Any]]]:
        if questions:
            yield self._first(questions[0])
        with ThreadPoolExecutor(self._concurrency) as pool:
            yield from pool.map(self._answer, questions[1:])

    def judge(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The predictions with what the judge says of them; nothing where it said nothing of use.

        Raises:
            InputError: the endpoint cannot be used.
        """
        questions = [f"Query: {row.sample.query}\n\nReply:\n{row.completion}" for row in predictions]
        keys = [
            hashlib.sha256(f"{self._model}\0{_SYSTEM}\0{question}".encode("utf-8", "surrogatepass")).hexdigest()
            for question in questions
        ]
        verdicts = {key: answer for key in keys if (answer := self._cache.get(key)) is not None}
        self.counts.cached += sum(key in verdicts for key in keys)
        missing = {key: question for key, question in zip(keys, questions, strict=True) if key not in verdicts}
        answers = self._answers(list(missing.values()))
        for key, (answer, usages) in zip(
            missing, progress(answers, "judging", total=len(missing), unit=" completions"), strict=True
        ):
            self.counts.asked += len(usages)
            for usage in filter(None, usages):
                self.counts.prompt_tokens += usage.prompt_tokens or 0
                self.counts.completion_tokens += usage.completion_tokens or 0
            if answer is not None:
                verdicts[key] = answer
                self._cache.put({key: answer})
        self.counts.failed += sum(key not in verdicts for key in keys)
        return [
            _with_verdict(row, _parse(verdicts[key])) if key in verdicts else row
            for row, key in zip(predictions, keys, strict=True)
        ]


def _with_verdict(prediction: Prediction, verdict: _Verdict) -> Prediction:
    refusable = prediction.sample.task_type == "refusable"
    said = verdict.categories if refusable and ScoredPrediction(prediction).is_true_negative else []
    return msgspec.structs.replace(
        prediction, consistency=verdict.consistency, categories=sorted(set(said)) if refusable else None
    )
