"""What is found out about predictions: the guide's rewards, and how near their texts are to the truth."""

from collections.abc import Sequence
from typing import Any

import msgspec

from rarft.embeddings.store import ReferenceStore
from rarft.evaluation.predictions import Prediction
from rarft.evaluation.sample_stats import ScoredPrediction
from rarft.rewards.registry import resolve_rewards
from rarft.rewards.replay import reward_columns

REWARDS = ["format", "refuse_iou", "explain_correction"]
_NEAREST = "explain_correction/best_similarity"


def _rewards(predictions: Sequence[Prediction], name: str, reward: Any, parts: dict[str, list[Any]]) -> list[Any]:
    """A reward of every prediction, in one call; None where it needs a duration that is not known."""
    usable = [index for index, row in enumerate(predictions) if row.sample.duration or name != "refuse_iou"]
    rows: dict[str, list[Any]] = {}
    for index in usable:
        for column, given in reward_columns(predictions[index].sample).items():
            rows.setdefault(column, []).extend(given)
    values: list[Any] = [None] * len(predictions)
    if not usable:
        return values
    scores = reward(
        prompts=[predictions[index].sample.query for index in usable],
        completions=[predictions[index].completion for index in usable],
        completion_ids=[[] for _ in usable],
        log_metric=lambda *_: None,
        log_extra=parts.__setitem__,
        trainer_state=None,
        **rows,
    )
    for index, score in zip(usable, scores, strict=True):
        values[index] = score
    return values


def scored(predictions: Sequence[Prediction], store: ReferenceStore) -> list[Prediction]:
    """The predictions with rewards and similarities; each distinct text goes through the encoder once."""
    if not predictions:
        return []
    parts: dict[str, list[Any]] = {}
    functions = dict(zip(REWARDS, resolve_rewards(REWARDS, store), strict=True))
    terms = {name: _rewards(predictions, name, reward, parts) for name, reward in functions.items()}
    judged = [ScoredPrediction(prediction) for prediction in predictions]
    refusals = [
        index
        for index, row in enumerate(judged)
        if row.is_true_negative and row.response.answer and row.prediction.sample.gt_answer
    ]
    pairs = [(str(judged[index].response.answer), [predictions[index].sample.gt_answer]) for index in refusals]
    alike = {index: values[0] for index, values in zip(refusals, store.similarities(pairs), strict=True)}
    nearest = parts.get(_NEAREST) or [None] * len(predictions)
    return [
        msgspec.structs.replace(
            prediction,
            rewards={name: values[index] for name, values in terms.items() if values[index] is not None},
            refusal_similarity=alike.get(index),
            correction_similarity=nearest[index],
        )
        for index, prediction in enumerate(predictions)
    ]
