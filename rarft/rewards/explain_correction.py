"""Explain and correction reward: was refusing right, and does the correction say what the video does show?"""

from typing import Any, Protocol

from rarft.response import Response, parse
from rarft.rewards.completions import completion_text

THRESHOLD = 0.5  # similarity above which a correction earns a bonus


class Similarity(Protocol):
    """How alike texts are: for each pair (text, candidates), the highest cosine similarity; -1 for no candidates."""

    def best_similarities(self, pairs: list[tuple[str, list[str]]]) -> list[float]:
        """One value in [-1, 1] for each pair."""


def refusal_score(response: Response, task_type: str) -> float:
    """1 where the kind of answer is right: a timestamp for an answerable query, a refusal for a refusable one."""
    return float(response.refuses if task_type == "refusable" else response.segment is not None)


class ExplainCorrection:
    """The reward with its encoder: refusal score, plus for refusable queries max(0, best similarity - 0.5).

    The best similarity is the cosine of the correction to its nearest reference query (guide, reward 3; D4). In
    [0, 1] for answerable queries and [0, 1.5] for refusable ones. A missing, blank or NIL correction, or a
    sample without reference queries, earns no bonus.
    """

    __name__ = "explain_correction_reward"

    def __init__(self, similarity: Similarity) -> None:
        self._similarity = similarity

    def __call__(
        self, completions: list[Any], task_type: list[str], reference_queries: list[list[str]], **_: Any
    ) -> list[float]:
        """Score each completion; one batch through the encoder."""
        responses = [parse(completion_text(completion)) for completion in completions]
        scores = [refusal_score(*row) for row in zip(responses, task_type, strict=True)]
        corrections = [
            (index, response.corrected_query)
            for index, (response, kind) in enumerate(zip(responses, task_type, strict=True))
            if kind == "refusable" and response.corrected_query and reference_queries[index]
        ]
        pairs = [(text, list(reference_queries[index])) for index, text in corrections]
        for (index, _text), best in zip(corrections, self._similarity.best_similarities(pairs), strict=True):
            scores[index] += max(0.0, best - THRESHOLD)
        return scores


def explain_correction_reward(
    completions: list[Any], task_type: list[str], reference_queries: list[list[str]], **columns: Any
) -> list[float]:
    """The reward with the default encoder, all-MiniLM-L6-v2, and no precomputed references."""
    from rarft.references.encoder import default_encoder
    from rarft.references.store import ReferenceStore

    store = ReferenceStore.empty(default_encoder())
    return ExplainCorrection(store)(completions, task_type, reference_queries, **columns)
