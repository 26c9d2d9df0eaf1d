"""The probability that a model refuses a query, from its next-token probabilities at the start of the answer.

The score of a query is p_refuse / (p_refuse + p_answer), given the prompt and the model's own greedy completion up to
and including `<answer>`:

- p_answer is the probability that the answer starts with a digit, because an answer with a moment is a segment.
- p_refuse is the probability that it starts with one of `REFUSAL_WORDS`: more precisely, with the first token of one.

A tokenizer may have tokens such as `>No`, which contain the end of the tag and the start of the answer. So both
probabilities are sums over paths: the tokens from the last common token of `<answer>0`, `<answer>No` and so on up to
the first one that contains part of the answer. The completion is cut where these paths start.

The answer is that of the parser: the last complete `<answer>` block, otherwise the last `<answer>`. A completion
without `<answer>` is continued with it, so that every completed query has a score.
"""

import bisect
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

from rarft.completion import answer_start

_TAG = "<answer>"
# First words of refusals in English. The tokens of all of them fit in a request to vLLM, which has at most 128.
_LOWER_CASE = (
    "the", "there", "this", "that", "these", "those", "it", "in", "at", "a", "an", "no", "none", "not", "nothing",
    "nobody", "neither", "only", "although", "while", "instead", "unfortunately", "sorry", "i", "he", "she", "they",
    "we", "person", "people", "someone", "video", "query", "what", "all", "both", "because", "during",
)  # fmt: skip
REFUSAL_WORDS = tuple(word for lower in _LOWER_CASE for word in (lower.capitalize(), lower))
Ids = list[int]
# Log-probabilities of some tokens (last argument) after each prompt with its prefix; None if they are not available.
NextLogprobs = Callable[[Sequence[Any], Sequence[Ids], Ids], list[list[float] | None]]


class RefusalScorer:
    """Paths of refusing and of answering in a tokenizer, and the scores by them."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        starts = {
            kind: [self._encode(_TAG + start) for start in words]
            for kind, words in (("answer", "0123456789"), ("refuse", REFUSAL_WORDS))
        }
        every = [ids for of_kind in starts.values() for ids in of_kind]
        self._stem = [
            column[0] for column in itertools.takewhile(lambda ids: len(set(ids)) == 1, zip(*every, strict=False))
        ]
        while len(self._decode(self._stem)) > len(_TAG):
            self._stem = self._stem[:-1]
        self._paths = {kind: {self._path(ids) for ids in of_kind} for kind, of_kind in starts.items()}
        self._paths["refuse"] -= self._paths["answer"]

    def _encode(self, text: str) -> Ids:
        return list(self._tokenizer.encode(text, add_special_tokens=False))

    def _decode(self, ids: Ids) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def _path(self, ids: Ids) -> tuple[int, ...]:
        """Return the tokens after the stem, up to the first that contains part of the answer."""
        end = next(end for end in range(1, len(ids) + 1) if len(self._decode(ids[:end])) > len(_TAG))
        return tuple(ids[len(self._stem) : end])

    def prefix(self, ids: Ids) -> Ids:
        """Return the tokens of a completion up to the start of its answer, where all paths start."""
        text = self._decode(ids)
        start = answer_start(text)
        if start is None:
            special = set(self._tokenizer.all_special_ids)
            return [token for token in ids if token not in special] + self._encode("\n") + self._stem
        end = start - len(_TAG) + len(self._decode(self._stem))
        count = bisect.bisect_right(range(1, len(ids) + 1), end, key=lambda length: len(self._decode(ids[:length])))
        return ids[:count] + self._encode(text[len(self._decode(ids[:count])) : end])

    def scores(
        self, prompts: Sequence[Any], completions: Sequence[Ids], next_logprobs: NextLogprobs
    ) -> list[float | None]:
        """Return the score of each completion; None where the probabilities are not available."""
        prefixes = [self.prefix(ids) for ids in completions]
        paths = [path for of_kind in self._paths.values() for path in of_kind]
        found: list[dict[tuple[int, ...], float] | None] = [{} for _ in prompts]
        for inner in sorted({path[:length] for path in paths for length in range(len(path))}, key=len):
            tokens = sorted({path[len(inner)] for path in paths if path[: len(inner)] == inner})
            extended = [[*prefix, *inner] for prefix in prefixes]
            for index, logprobs in enumerate(next_logprobs(prompts, extended, tokens)):
                known = found[index]
                if known is None or logprobs is None:
                    found[index] = None
                    continue
                before = known.get(inner, 0.0)
                known |= {(*inner, token): before + value for token, value in zip(tokens, logprobs, strict=True)}
        return [None if known is None else self._score(known) for known in found]

    def _score(self, logprobs: dict[tuple[int, ...], float]) -> float:
        refuse, answer = (_logsumexp([logprobs[path] for path in self._paths[kind]]) for kind in ("refuse", "answer"))
        total = _logsumexp([refuse, answer])
        return math.exp(refuse - total)


def _logsumexp(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))
