"""Requests to a model that costs money: each reply is stored when it arrives, and the total cost has a bound."""

import logging
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Lock

import msgspec

from rarft.chat import ChatClient
from rarft.errors import InputError, input_name, one_line
from rarft.storage.files import local_path
from rarft.storage.hashing import hash_text
from rarft.storage.sqlite_cache import SqliteCache
from rarft.user_cache import cache_folder, find_problem

MAX_TOKENS = 1024  # of a reply
_MAX_ATTEMPTS = 6  # after errors of the server
_MAX_TIMEOUTS = 2  # a request that times out may have been paid for
_FIRST_WAIT_S = 1.0  # doubled with every further attempt
_MAX_WAIT_S = 60.0
_MAX_CONSECUTIVE_FAILURES = 20  # then the remaining requests are not sent
_OVERHEAD_TOKENS = 64  # of the chat template
logger = logging.getLogger(__name__)


class NoReplyError(Exception):
    """The endpoint gave no reply, also after retries."""


class MaxCostError(Exception):
    """A further request could exceed the maximum cost."""


@dataclass(frozen=True)
class ModelOptions:
    """Settings of the model.

    Attributes:
        url: URL of an OpenAI-compatible endpoint.
        model: Model that the endpoint serves.
        cache: SQLite file of replies; None for the user's cache folder.
        prices: US dollars per million prompt tokens and per million completion tokens; None if unknown.
        max_cost: US dollars that all replies may cost, those of earlier runs included; None for no bound.
        requests_per_minute: Maximum rate of requests; None for no limit.
        concurrency: Maximum number of simultaneous requests.
        timeout: Seconds per request.
    """

    url: str
    model: str
    cache: str | None = None
    prices: tuple[float, float] | None = None
    max_cost: float | None = None
    requests_per_minute: float | None = None
    concurrency: int = 8
    timeout: float = 120.0

    def __post_init__(self) -> None:
        if self.max_cost is not None and self.prices is None:
            raise InputError("--max-cost: requires --prices IN OUT")


class _Stored(msgspec.Struct):
    """A reply in the cache. A reply without text was paid for, too."""

    text: str | None
    prompt_tokens: int
    completion_tokens: int


def _default_cache() -> Path:
    """Return the file of replies in the user's cache folder; a temporary one would lose what was paid for."""
    folder = cache_folder()
    if folder is None or (problem := find_problem(folder)) is not None:
        raise InputError(f"replies cannot be kept ({problem if folder else 'no home folder'}); name a writable file")
    return folder / "negatives.sqlite"


class PaidRequests:
    """Sends requests, from several threads.

    Attributes:
        counts: `replies` of this run, `cached` replies of earlier runs, `retries`, `timeouts`, `failed` requests,
            `prompt_tokens` and `completion_tokens` of all replies.
        first_failure: Description of the first failed request; empty if there is none.
    """

    def __init__(self, options: ModelOptions) -> None:
        self._options = options
        self._client = ChatClient("negatives", "judge", options.url, options.model, options.timeout, max_retries=0)
        with input_name("--cache"):
            self._cache = SqliteCache(local_path(options.cache) if options.cache else _default_cache())
        self.counts: Counter[str] = Counter()
        self.first_failure = ""
        self._lock = Lock()
        self._released = Condition(self._lock)
        self._cost = 0.0
        self._reserved = 0.0  # upper bound of the cost of requests in flight
        self._key_locks: dict[str, Lock] = defaultdict(Lock)
        self._counted: set[str] = set()  # keys of the replies that are part of the cost
        self._not_before = 0.0  # time of the next request
        self._consecutive_failures = 0

    def check(self) -> None:
        """Check that the endpoint can be used; raise an InputError if it cannot."""
        self._client.check()

    @property
    def cost(self) -> float | None:
        """US dollars of all replies, those of earlier runs included; None without prices."""
        return None if self._options.prices is None else self._cost

    def _price(self, prompt_tokens: int, completion_tokens: int) -> float:
        prompt, completion = self._options.prices or (0.0, 0.0)
        return (prompt_tokens * prompt + completion_tokens * completion) / 1e6

    def ask(self, system: str, question: str, attempt: int = 0) -> str | None:
        """Return the reply to a question, from the cache if it was asked before; None for a reply without text.

        Args:
            system: System prompt.
            question: The user's turn.
            attempt: Number of times that the same question got an unusable reply.

        Raises:
            NoReplyError: There is no reply.
            MaxCostError: The request could exceed the maximum cost.
            InputError: No request to this endpoint can succeed.
        """
        key = hash_text(self._options.model, system, question, str(attempt))
        with self._lock:
            key_lock = self._key_locks[key]
        with key_lock:  # another thread may ask the same
            if (text := self._cache.get(key)) is not None:
                stored = msgspec.json.decode(text, type=_Stored)
                with self._lock:
                    self.counts["cached"] += 1
                    self._add(key, stored)
                return stored.text
            # A token has at least one byte.
            prompt_bound = len((system + question).encode()) + _OVERHEAD_TOKENS
            return self._send(system, question, prompt_bound, key).text

    def _add(self, key: str, stored: _Stored) -> None:
        """Count a reply once; the caller has the lock."""
        if key in self._counted:
            return
        self._counted.add(key)
        self._cost += self._price(stored.prompt_tokens, stored.completion_tokens)
        self.counts["prompt_tokens"] += stored.prompt_tokens
        self.counts["completion_tokens"] += stored.completion_tokens

    def _reserve(self, bound: float) -> None:
        """Reserve the highest possible cost of a request; wait for those in flight, which will cost less."""
        limit = self._options.max_cost
        with self._lock:
            while limit is not None and self._cost + self._reserved + bound > limit:
                if self._cost + bound > limit:
                    raise MaxCostError
                self._released.wait()
            self._reserved += bound

    def _release(self, bound: float) -> None:
        """Undo a reservation; the caller has the lock, and has added the cost."""
        self._reserved -= bound
        self._released.notify_all()

    def _send(self, system: str, question: str, prompt_bound: int, key: str) -> _Stored:
        openai = self._client.openai
        bound = self._price(prompt_bound, MAX_TOKENS)
        timeouts = 0
        for attempt in range(_MAX_ATTEMPTS):
            if self._consecutive_failures >= _MAX_CONSECUTIVE_FAILURES:
                raise NoReplyError("too many failed requests in a row")
            self._reserve(bound)
            try:
                self._wait_for_turn()
                reply = self._client.create_completion(system, question, max_tokens=MAX_TOKENS)
            except (openai.OpenAIError, ValueError) as error:
                is_timeout = isinstance(error, openai.APITimeoutError)
                with self._lock:
                    if is_timeout or isinstance(error, ValueError):  # the server may charge for it
                        self._cost += bound
                    self._release(bound)
                timeouts += is_timeout
                self._handle(error, attempt, timeouts)
                continue
            stored = _Stored(
                reply.text,
                prompt_bound if reply.prompt_tokens is None else reply.prompt_tokens,
                MAX_TOKENS if reply.completion_tokens is None else reply.completion_tokens,
            )
            self._cache.put({key: msgspec.json.encode(stored).decode()})
            with self._lock:
                self._add(key, stored)
                self._release(bound)
                self.counts["replies"] += 1
                self._consecutive_failures = 0
            return stored
        raise AssertionError("the last attempt raises")

    def _handle(self, error: Exception, attempt: int, timeouts: int) -> None:
        """Wait before the next attempt, or raise if there is none."""
        openai = self._client.openai
        if not self.counts["replies"]:
            self._client.raise_if_permanent(error)
        status = getattr(error, "status_code", None)
        is_transient = status is None or status in {408, 409, 429} or status >= 500
        with self._lock:
            self.counts["timeouts" if isinstance(error, openai.APITimeoutError) else "errors"] += 1
            if not is_transient or timeouts >= _MAX_TIMEOUTS or attempt == _MAX_ATTEMPTS - 1:
                self.counts["failed"] += 1
                self._consecutive_failures += 1
                failure = one_line(error)[:300]
                self.first_failure = self.first_failure or failure
                raise NoReplyError(failure) from error
            self.counts["retries"] += 1
            wait = min(_MAX_WAIT_S, _FIRST_WAIT_S * 2**attempt)
            if status == 429:  # all threads wait
                wait = max(wait, _retry_after(error))
                self._not_before = max(self._not_before, time.monotonic() + wait)
                return
        time.sleep(wait)

    def _wait_for_turn(self) -> None:
        """Wait until the rate limit allows a request."""
        rate = self._options.requests_per_minute
        while True:
            with self._lock:
                now = time.monotonic()
                if now >= self._not_before:
                    if rate is not None:
                        self._not_before = now + 60 / rate
                    return
                wait = self._not_before - now
            time.sleep(wait)


def _retry_after(error: Exception) -> float:
    """Return the seconds that the server asks to wait; 0 if it does not."""
    response = getattr(error, "response", None)
    try:
        return min(600.0, max(0.0, float(response.headers.get("retry-after", 0)))) if response is not None else 0.0
    except ValueError:
        return 0.0
