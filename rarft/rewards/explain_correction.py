"""Explain-correction reward: whether refusing is right, and whether the correction describes the video."""

from collections.abc import Mapping
from typing import Any, Protocol

from rarft.completion import Completion, parse_completion
from rarft.rewards.columns import LogExtra, LogMetric, completion_text, log_term

BEST_SIMILARITY = "explain_correction/best_similarity"  # name of a logged term
_THRESHOLD = 0.5  # similarity above which a correction earns a bonus


class Similarity(Protocol):
    """Similarity of texts."""

    def similarities(self, pairs: list[tuple[str, list[str]]]) -> list[list[float]]:
        """Return for each (text, candidates) the cosine similarity to each candidate, in [-1, 1]."""


def refusal_score(completion: Completion, task_type: str) -> float:
    """Return 1.0 for a segment on an answerable query and a refusal on a refusable one; 0.0 otherwise."""
    return float(completion.refuses if task_type == "refusable" else completion.outcome == "segment")


class ExplainCorrection:
    """The reward with its encoder: refusal score, plus a bonus for the correction of a refusable query.

    The bonus is max(0, best - 0.5), where best is the cosine similarity of the correction to the closest reference
    query (training guide, reward 3; D4). The range is [0, 1] for answerable and [0, 1.5] for refusable queries. A
    missing, blank or NIL correction, or a sample without reference queries, earns no bonus.

    With the baseline `query` the bonus is max(0, best - max(0.5, best of the refused query itself)): what the
    correction adds over echoing the query (D5).
    """

    __name__ = "explain_correction_reward"

    def __init__(self, similarity: Similarity, baseline: str = "none") -> None:
        self._similarity = similarity
        self._baseline = baseline

    def __call__(
        self,
        completions: list[Any],
        task_type: list[str],
        reference_queries: list[list[str]],
        query: list[str] | None = None,
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **_: Any,
    ) -> list[float]:
        """Score each completion. The encoder receives one batch of texts, and one of queries as their baseline."""
        parsed = [parse_completion(completion_text(completion)) for completion in completions]
        scores = [refusal_score(*row) for row in zip(parsed, task_type, strict=True)]
        log_term("explain_correction/refusal_score", scores, log_metric, log_extra)
        corrections = {
            index: completion.corrected_query
            for index, (completion, kind) in enumerate(zip(parsed, task_type, strict=True))
            if kind == "refusable" and completion.corrected_query and reference_queries[index]
        }

        def best_similarities(texts: Mapping[int, str]) -> dict[int, float]:
            pairs = [(text, list(reference_queries[index])) for index, text in texts.items()]
            return dict(zip(texts, map(max, self._similarity.similarities(pairs)), strict=True))

        best = best_similarities(corrections)
        echo: dict[int, float] = {}
        if self._baseline == "query":
            if query is None:
                raise ValueError("correction_baseline=query needs the column `query`")
            echo = best_similarities({index: query[index] for index in corrections})
        bonuses = {
            index: max(0.0, value - max(_THRESHOLD, echo.get(index, _THRESHOLD))) for index, value in best.items()
        }
        rows = range(len(scores))
        log_term(BEST_SIMILARITY, [best.get(index) for index in rows], log_metric, log_extra)
        log_term("explain_correction/correction_bonus", [bonuses.get(index) for index in rows], log_metric, log_extra)
        return [score + bonuses.get(index, 0.0) for index, score in enumerate(scores)]


def explain_correction_reward(
    completions: list[Any], task_type: list[str], reference_queries: list[list[str]], **columns: Any
) -> list[float]:
    """Score each completion with the default encoder, all-MiniLM-L6-v2, and no precomputed references.

    Example:
        >>> text = "<think>a</think><answer>no dog</answer><correction>a cat sleeps</correction>"
        >>> explain_correction_reward([text], ["refusable"], [["a cat sleeps"]])
        [1.5]
    """
    from rarft.embeddings.store import default_store

    return ExplainCorrection(default_store())(completions, task_type, reference_queries, **columns)
