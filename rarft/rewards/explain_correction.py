"""Explain and correction reward: was refusing right, and does the correction say what the video does show?"""

from typing import Any, Protocol

from rarft.completion import Completion, parse_completion
from rarft.rewards.completions import LogExtra, LogMetric, completion_text, log_term

THRESHOLD = 0.5  # similarity above which a correction earns a bonus


class Similarity(Protocol):
    """How alike texts are."""

    def similarities(self, pairs: list[tuple[str, list[str]]]) -> list[list[float]]:
        """For each (text, candidates) the cosine similarity to each candidate, in [-1, 1]."""


def refusal_score(response: Completion, task_type: str) -> float:
    """1 where the kind of answer is right: a timestamp for an answerable query, a refusal for a refusable one."""
    return float(response.refuses if task_type == "refusable" else response.segment is not None)


class ExplainCorrection:
    """The reward with its encoder: refusal score, plus for refusable queries a bonus for the correction.

    The bonus is max(0, best - 0.5), best being the cosine similarity of the correction to its nearest reference
    query (guide, reward 3; D4). In [0, 1] for answerable queries and [0, 1.5] for refusable ones. A missing, blank
    or NIL correction, or a sample without reference queries, earns no bonus.

    With the baseline `query` it is max(0, best - max(0.5, best of the refused query itself)): what the correction
    adds over echoing the query (D5).
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
        """Score each completion; one batch through the encoder.

        Raises:
            ValueError: the baseline `query` without the column `query`.
        """
        responses = [parse_completion(completion_text(completion)) for completion in completions]
        scores = [refusal_score(*row) for row in zip(responses, task_type, strict=True)]
        log_term("explain_correction/refusal_score", scores, log_metric, log_extra)
        corrections = {
            index: response.corrected_query
            for index, (response, kind) in enumerate(zip(responses, task_type, strict=True))
            if kind == "refusable" and response.corrected_query and reference_queries[index]
        }
        best = self._best([(text, list(reference_queries[index])) for index, text in corrections.items()])
        least = [THRESHOLD] * len(best)
        if self._baseline == "query":
            if query is None:
                raise ValueError("correction_baseline=query needs the column `query`")
            echoes = self._best([(query[index], list(reference_queries[index])) for index in corrections])
            least = [max(THRESHOLD, echo) for echo in echoes]
        bonuses = [max(0.0, value - floor) for value, floor in zip(best, least, strict=True)]
        best_of: list[float | None] = [None] * len(scores)
        bonus_of: list[float | None] = [None] * len(scores)
        for index, value, bonus in zip(corrections, best, bonuses, strict=True):
            scores[index] += bonus
            best_of[index], bonus_of[index] = value, bonus
        log_term("explain_correction/best_similarity", best_of, log_metric, log_extra)
        log_term("explain_correction/correction_bonus", bonus_of, log_metric, log_extra)
        return scores

    def _best(self, pairs: list[tuple[str, list[str]]]) -> list[float]:
        return [max(values) for values in self._similarity.similarities(pairs)]


def explain_correction_reward(
    completions: list[Any], task_type: list[str], reference_queries: list[list[str]], **columns: Any
) -> list[float]:
    """The reward with the default encoder, all-MiniLM-L6-v2, and no precomputed references."""
    from rarft.embeddings.store import default_store

    return ExplainCorrection(default_store())(completions, task_type, reference_queries, **columns)
