"""Scores of predictions: the rewards of training, and the similarity of their texts to the truth."""

from collections.abc import Sequence
from typing import Any

import msgspec

from rarft.embeddings.store import ReferenceStore
from rarft.evaluation.predictions import Prediction
from rarft.evaluation.scored_predictions import ScoredPrediction
from rarft.rewards.columns import DEFAULT_REWARDS, RewardFunction, apply_reward
from rarft.rewards.explain_correction import BEST_SIMILARITY
from rarft.rewards.registry import resolve_rewards


def _compute_reward(
    predictions: Sequence[Prediction], name: str, reward: RewardFunction, extras: dict[str, list[Any]]
) -> list[float | None]:
    """Return a reward of every prediction, from one call; None where it needs a duration that is unknown.

    `extras` receives the per-completion columns that the reward logs.
    """
    usable = [index for index, row in enumerate(predictions) if row.sample.duration or name != "refuse_iou"]
    values: list[float | None] = [None] * len(predictions)
    if usable:
        rows = [predictions[index] for index in usable]
        rewards = apply_reward(
            reward, [row.sample for row in rows], [row.completion for row in rows], log_extra=extras.__setitem__
        )
        for index, value in zip(usable, rewards, strict=True):
            values[index] = value
    return values


def score_predictions(predictions: Sequence[Prediction], store: ReferenceStore) -> list[Prediction]:
    """Return the predictions with rewards and similarities; each distinct text is encoded once."""
    if not predictions:
        return []
    extras: dict[str, list[Any]] = {}
    functions = dict(zip(DEFAULT_REWARDS, resolve_rewards(list(DEFAULT_REWARDS), store), strict=True))
    rewards = {name: _compute_reward(predictions, name, reward, extras) for name, reward in functions.items()}
    scored = [ScoredPrediction(prediction) for prediction in predictions]
    refusals = [
        index
        for index, row in enumerate(scored)
        if row.is_true_negative and row.completion.answer and row.prediction.sample.gt_answer
    ]
    pairs = [(str(scored[index].completion.answer), [predictions[index].sample.gt_answer]) for index in refusals]
    similarities = {index: values[0] for index, values in zip(refusals, store.similarities(pairs), strict=True)}
    corrections = extras.get(BEST_SIMILARITY) or [None] * len(predictions)
    return [
        msgspec.structs.replace(
            prediction,
            rewards={name: value for name, values in rewards.items() if (value := values[index]) is not None},
            refusal_similarity=similarities.get(index),
            correction_similarity=corrections[index],
        )
        for index, prediction in enumerate(predictions)
    ]
