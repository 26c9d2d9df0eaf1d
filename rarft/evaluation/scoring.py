"""What is found out about predictions: the guide's rewards, and how near their texts are to the truth."""

from collections.abc import Sequence
from typing import Any

import msgspec

from rarft.embeddings.store import ReferenceStore
from rarft.evaluation.predictions import Prediction
from rarft.evaluation.sample_stats import ScoredPrediction
from rarft.rewards.columns import BEST_SIMILARITY, DEFAULT_REWARDS, apply_reward
from rarft.rewards.registry import resolve_rewards

REWARDS = list(DEFAULT_REWARDS)


def _rewards(predictions: Sequence[Prediction], name: str, reward: Any, parts: dict[str, list[Any]]) -> list[Any]:
    """A reward of every prediction, in one call; None where it needs a duration that is not known."""
    usable = [index for index, row in enumerate(predictions) if row.sample.duration or name != "refuse_iou"]
    values: list[Any] = [None] * len(predictions)
    if not usable:
        return values
    scores = apply_reward(
        reward,
        [predictions[index].sample for index in usable],
        [predictions[index].completion for index in usable],
        log_extra=parts.__setitem__,
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
    nearest = parts.get(BEST_SIMILARITY) or [None] * len(predictions)
    return [
        msgspec.structs.replace(
            prediction,
            rewards={name: values[index] for name, values in terms.items() if values[index] is not None},
            refusal_similarity=alike.get(index),
            correction_similarity=nearest[index],
        )
        for index, prediction in enumerate(predictions)
    ]
