"""Contrastive variant of the explain-correction reward, as the published reference code logs it (D6)."""

from typing import Any

from rarft.completion import parse_completion
from rarft.rewards.columns import LogExtra, LogMetric, completion_text, log_term
from rarft.rewards.explain_correction import Similarity


class ExplainCorrectionContrastive:
    """Sum of an explain term and a correction term, in [-1, 2].

    Explain, in [-1, 1]: (cos(answer, ground truth) - cos(answer, contrasting answer)) / 2. The contrasting answer is
    the ground truth of the same item's query of the other task type; without one, its cosine counts as 0. A missing,
    blank or unreadable answer scores 0. A query without a ground-truth answer is left out.

    Correction, in [0, 1]: for an answerable query, 1 for NIL. For a refusable query, (cos(correction, the item's
    answerable query) + 1) / 2, and 0 for NIL or no correction.
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
    ) -> list[float | None]:
        """Score each completion; None without a ground-truth answer. The encoder receives one batch of texts."""
        parsed = [parse_completion(completion_text(completion)) for completion in completions]
        rows = list(zip(parsed, task_type, gt_answers, contrast_answers, reference_queries, strict=True))
        pairs: list[tuple[str, list[str]]] = []
        for completion, _kind, truth, contrast, references in rows:
            pairs.append((completion.answer or "", [truth, contrast or truth]))
            pairs.append((completion.corrected_query or "", list(references[:1])))
        similarities = self._similarity.similarities(pairs)
        explains: list[float | None] = []
        corrections: list[float | None] = []
        for (completion, kind, _truth, contrast, references), answer, correction in zip(
            rows, similarities[::2], similarities[1::2], strict=True
        ):
            contrasting = answer[1] if contrast else 0.0
            explains.append((answer[0] - contrasting) / 2 if completion.is_readable else 0.0)
            if kind == "answerable":
                corrections.append(float(completion.correction is not None and completion.corrected_query is None))
            else:
                corrections.append((correction[0] + 1) / 2 if completion.corrected_query and references else 0.0)
        for index in (index for index, truth in enumerate(gt_answers) if not truth):
            explains[index] = corrections[index] = None
        log_term("explain_correction_contrastive/explain", explains, log_metric, log_extra)
        log_term("explain_correction_contrastive/correction", corrections, log_metric, log_extra)
        return [
            None if explain is None or correction is None else explain + correction
            for explain, correction in zip(explains, corrections, strict=True)
        ]


def explain_correction_contrastive_reward(completions: list[Any], **columns: Any) -> list[float | None]:
    """Score each completion with the default encoder, all-MiniLM-L6-v2."""
    from rarft.embeddings.store import default_store

    return ExplainCorrectionContrastive(default_store())(completions, **columns)
