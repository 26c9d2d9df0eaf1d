"""The contrastive variant of the explain and correction reward, as the published reference code logs it (D6)."""

from typing import Any

from rarft.completion import parse_completion
from rarft.rewards.completions import LogExtra, LogMetric, completion_text, log_term
from rarft.rewards.explain_correction import Similarity


class ExplainCorrectionContrastive:
    """Explain plus correction, in [-1, 2].

    Explain, in [-1, 1]: (cos(answer, own ground truth) - cos(answer, contrasting answer)) / 2. The contrasting
    answer is the ground truth of the item's query of the other kind; where there is none, its cosine counts as 0.
    A missing or blank answer explains nothing: 0.

    Correction, in [0, 1]: for an answerable query 1 for NIL; for a refusable one with a correction other than NIL
    (cos(correction, the item's answerable query) + 1) / 2; else 0.
    """

    __name__ = "explain_correction_contrastive_reward"

    def __init__(self, similarity: Similarity) -> None:
        self._similarity = similarity

    def __call__(
        self,
        completions: list[Any],
        task_type: list[str],
        gt_answers: list[str],
        contrast_answers: list[str | None],
        reference_queries: list[list[str]],
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **_: Any,
    ) -> list[float]:
        """Score each completion; one batch through the encoder."""
        pairs: list[tuple[str, list[str]]] = []
        responses = [parse_completion(completion_text(completion)) for completion in completions]
        rows = list(zip(responses, task_type, gt_answers, contrast_answers, reference_queries, strict=True))
        for response, _kind, own, contrast, references in rows:
            pairs.append((response.answer or "", [own, contrast or own]))
            pairs.append((response.corrected_query or "", list(references[:1])))
        found = self._similarity.similarities(pairs)
        explains, corrections = [], []
        for (response, kind, _own, contrast, references), answer, correction in zip(
            rows, found[::2], found[1::2], strict=True
        ):
            against = answer[1] if contrast else 0.0
            explains.append((answer[0] - against) / 2 if response.answer else 0.0)
            if kind == "answerable":
                corrections.append(float(response.correction is not None and response.corrected_query is None))
            else:
                corrections.append((correction[0] + 1) / 2 if response.corrected_query and references else 0.0)
        log_term("explain_correction_contrastive/explain", explains, log_metric, log_extra)
        log_term("explain_correction_contrastive/correction", corrections, log_metric, log_extra)
        return [explain + correction for explain, correction in zip(explains, corrections, strict=True)]


def explain_correction_contrastive_reward(completions: list[Any], **columns: Any) -> list[float]:
    """The reward with the default encoder, all-MiniLM-L6-v2, and nothing precomputed."""
    from rarft.embeddings.store import default_store

    return ExplainCorrectionContrastive(default_store())(completions, **columns)
