"""Refusable queries by a language model, each checked by a second request against the captions."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock

import msgspec

from rarft.annotations.parsing import normalize_text
from rarft.annotations.schema import CATEGORIES
from rarft.negatives.corpus import Corpus, Item
from rarft.negatives.lexicon import Lexicon
from rarft.negatives.negative import Negative, reads_as_refusal
from rarft.negatives.requests import MaxCostError, NoReplyError, PaidRequests
from rarft.negatives.shuffled import unnamed_words
from rarft.negatives.similarity import TextVectors, difficulty_of
from rarft.progress import progress

_ROUNDS = 2  # of requests for the queries of an item
_MALFORMED = 2  # replies to one question
_MAX_QUERY = 300  # characters
_MAX_REASON = 1000
_CATEGORIES = sorted(CATEGORIES)
_WRITE = f"""You write queries for a test of video search. A system gets a video and a query, and must refuse the \
query if no moment of the video matches it. You see captions of a video.
Write queries that sound as if they belonged to this video, in the style of its captions, but that certainly match no \
moment of it: something in each query contradicts what the captions describe, and cannot be true next to it. Do not \
write the opposite of an action (such as closing a door that is opened), which may happen without a caption.
Give each query one category of mismatch, and a reason: one or two sentences to a user that name what the video shows \
instead, without times.
Categories: {", ".join(_CATEGORIES)}.
Return one JSON object and nothing else: {{"queries": [{{"query": "...", "category": "...", "reason": "..."}}]}}"""
_CHECK = """You check queries for a test of video search. You see captions of a video and a query. Decide whether \
the video shows what the query describes. Captions are incomplete: a query is absent only if the captions contradict \
it, or if a caption would certainly mention it.
Return one JSON object and nothing else: {"verdict": "absent" or "present" or "unclear", "why": "one sentence"}"""


class _Candidate(msgspec.Struct):
    query: str
    category: str
    reason: str


class _Candidates(msgspec.Struct):
    queries: list[_Candidate]


class _Verdict(msgspec.Struct):
    verdict: str
    why: str = ""


@dataclass(slots=True)
class Rejected:
    """A candidate, or a whole reply, that was not used."""

    video: str
    source: str
    query: str
    category: str
    problem: str


@dataclass(slots=True)
class ModelResult:
    """Result for one item; `failure` is empty if all requests were answered."""

    negatives: list[Negative] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    failure: str = ""
    stopped: bool = False  # at the maximum cost


def _json_object(text: str) -> str:
    """Return the outermost braces of a reply, which may be inside of a code block."""
    return text[text.find("{") : text.rfind("}") + 1]


class ModelWriter:
    """Makes queries with a model. Videos are worked on at the same time, the items of a video one after the other."""

    def __init__(
        self,
        corpus: Corpus,
        requests: PaidRequests,
        vectors: TextVectors,
        lexicon: Lexicon,
        model: str,
        duplicate: float,
        concurrency: int,
    ) -> None:
        self._corpus, self._requests, self._vectors, self._lexicon = corpus, requests, vectors, lexicon
        self._model, self._duplicate, self._concurrency = model, duplicate, concurrency
        self._lock = Lock()  # of the vectors

    def make(self, numbers: Mapping[int, int]) -> Iterator[tuple[int, ModelResult]]:
        """Yield (index of the item, result) for a number of queries per item.

        Raises:
            InputError: The endpoint cannot be used.
        """
        items = self._corpus.answerable_items()
        by_video: dict[int, list[int]] = {}
        for index, number in numbers.items():
            if number:
                by_video.setdefault(items[index].video, []).append(index)

        def work(indices: Sequence[int]) -> list[tuple[int, ModelResult]]:
            return [(index, self._make(index, items[index], numbers[index])) for index in indices]

        pool = ThreadPoolExecutor(self._concurrency)
        try:
            results = progress(pool.map(work, by_video.values()), "asking", total=len(by_video), unit=" videos")
            for result in results:
                yield from result
        finally:
            pool.shutdown(cancel_futures=True)

    def _make(self, index: int, item: Item, number: int) -> ModelResult:
        result = ModelResult()
        try:
            for attempt in range(_ROUNDS):
                if len(result.negatives) < number:
                    self._ask(index * _ROUNDS + attempt, item, number, result)
        except NoReplyError as error:
            result.failure = str(error)
        except MaxCostError:
            result.stopped = True
        return result

    def _question(self, turn: int, item: Item, number: int, rejected: Sequence[Rejected]) -> str:
        """Return the question for a number of queries, whose categories take turns."""
        categories = [_CATEGORIES[(turn + offset) % len(_CATEGORIES)] for offset in range(number)]
        lines = [f"Captions:\n{self._captions(item)}\n", f"Write {number} queries, of {', '.join(categories)}."]
        lines += [f"Not usable: {each.query} ({each.problem})" for each in rejected if each.query]
        return "\n".join(lines)

    def _captions(self, item: Item) -> str:
        return "\n".join(f"- {text}" for text in self._corpus.videos[item.video].texts)

    def _ask(self, turn: int, item: Item, number: int, result: ModelResult) -> None:
        """Ask for one candidate more than missing, and add those that pass all checks until there are enough."""
        question = self._question(turn, item, number - len(result.negatives) + 1, result.rejected)

        def reject(query: str, category: str, problem: str) -> None:
            video = self._corpus.videos[item.video].name
            result.rejected.append(Rejected(video, item.queries[0], query, category, problem))

        for trial in range(_MALFORMED):
            text = self._requests.ask(_WRITE, question, trial) or ""
            try:
                candidates = msgspec.json.decode(_json_object(text), type=_Candidates).queries
                break
            except msgspec.DecodeError as error:
                reject("", "", f"malformed reply ({error}): {text[:_MAX_QUERY]}")
        else:
            return
        for candidate in candidates:
            if len(result.negatives) == number:
                problem = "not needed: enough queries were accepted before"
            else:
                problem = self._find_problem(item, candidate) or self._check(item, candidate)
            if problem:
                reject(candidate.query, candidate.category, problem)
            else:
                result.negatives.append(self._accept(item, candidate))

    def _find_problem(self, item: Item, candidate: _Candidate) -> str:
        """Return the reason for which a candidate cannot be used, as far as it needs no request; empty without one."""
        query, reason = candidate.query.strip(), candidate.reason.strip()
        video = self._corpus.videos[item.video]
        if not 0 < len(query) <= _MAX_QUERY or not 0 < len(reason) <= _MAX_REASON or len(query.splitlines()) > 1:
            return "query or reason is empty or too long"
        if candidate.category not in CATEGORIES:
            return f"unknown category {candidate.category}"
        if not reads_as_refusal(reason):
            return "the reason states times"
        if normalize_text(query) in video.taken:
            return "the video already has this query or caption"
        if self._similarity(item, query) >= self._duplicate and not unnamed_words(
            query, self._lexicon, video.words(self._lexicon)
        ):
            return "near duplicate of a text about the video"
        return ""

    def _similarity(self, item: Item, query: str) -> float:
        with self._lock:
            return self._vectors.similarities([(query, list(self._corpus.videos[item.video].texts))])[0]

    def _check(self, item: Item, candidate: _Candidate) -> str:
        """Return the reason for which the second request rejects a candidate; empty if it is absent."""
        question = f"Captions:\n{self._captions(item)}\n\nQuery: {candidate.query.strip()}"
        for trial in range(_MALFORMED):
            text = self._requests.ask(_CHECK, question, trial) or ""
            try:
                verdict = msgspec.json.decode(_json_object(text), type=_Verdict)
            except msgspec.DecodeError:
                continue
            if verdict.verdict == "absent":
                return ""
            return f"check: {verdict.verdict}: {verdict.why}"[:_MAX_REASON]
        return f"check: malformed reply: {text}"[:_MAX_QUERY]

    def _accept(self, item: Item, candidate: _Candidate) -> Negative:
        query = candidate.query.strip()
        similarity = round(self._similarity(item, query), 4)
        self._corpus.videos[item.video].taken.add(normalize_text(query))
        return Negative(
            kind="model",
            query=query,
            source=item.queries[0],
            difficulty=difficulty_of(similarity),
            categories=[candidate.category],
            reason=" ".join(candidate.reason.split()),
            detail={"model": self._model, "similarity": similarity},
        )
