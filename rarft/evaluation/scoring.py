"""Scores of predictions: the rewards of training, and the similarity of their texts to the truth."""

from collections.abc import Sequence
from typing import Any

import msgspec

from rarft.embeddings.store import ReferenceStore
from rarft.evaluation.predictions import Prediction
from rarft.evaluation.scored_predictions import ScoredPrediction
from rarft.rewards.columns import DEFAULT_REWARDS, apply_reward
from rarft.rewards.explain_correction import BEST_SIMILARITY
from rarft.rewards.registry import resolve_rewards


def score_predictions(predictions: Sequence[Prediction], store: ReferenceStore) -> list[Prediction]:
    """Return the predictions with rewards and similarities; each distinct text is encoded once."""
    if not predictions:
        return []
    samples, completions = [row.sample for row in predictions], [row.completion for row in predictions]
    extras: dict[str, list[Any]] = {}
    functions = dict(zip(DEFAULT_REWARDS, resolve_rewards(list(DEFAULT_REWARDS), store), strict=True))
    rewards = {
        name: apply_reward(reward, samples, completions, log_extra=extras.__setitem__)
        for name, reward in functions.items()
    }
    scored = [ScoredPrediction(prediction) for prediction in predictions]
    refusals = [index for index, row in enumerate(scored) if row.is_true_negative and row.prediction.sample.gt_answer]
    pairs = [(str(scored[index].completion.answer), [predictions[index].sample.gt_answer]) for index in refusals]
    similarities = {index: values[0] for index, values in zip(refusals, store.similarities(pairs), strict=True)}
    corrections = extras[BEST_SIMILARITY]
    return [
        msgspec.structs.replace(
            prediction,
            rewards={name: value for name, values in rewards.items() if (value := values[index]) is not None},
            reward_parts={name: values[index] for name, values in extras.items() if values[index] is not None},
            refusal_similarity=similarities.get(index),
            correction_similarity=corrections[index],
        )
        for index, prediction in enumerate(predictions)
    ]
