"""Mismatch categories read from a refusal by rules: a rough stand-in for a judge, deterministic and free.

A refusal says what the video shows in place of what was asked ("the ring is red, not blue"). The rules look for words
of each kind, first in what the correction changes of the query, then in the reason. They fit the narrow wording of the
synthetic set. On refusals in free wording they are no better than one category named every time (docs/evaluation.md).
"""

import re
from collections.abc import Sequence

import msgspec

from rarft.evaluation.predictions import Prediction
from rarft.evaluation.sample_stats import ScoredPrediction

_WORDS = {
    "Attribute/Counting": "one two three four five six seven eight nine ten number numbers many count times twice "
    "once several single pair both",
    "Attribute/Comparison": "more less fewer larger smaller bigger taller shorter longer faster slower than most "
    "least same equal",
    "Attribute/AttributeValue": "colour color red orange yellow green blue purple violet pink brown black white grey "
    "gray size shape big small large round square long short old new wooden metal striped dark bright",
    "Action/ActionSequence": "before after then first second last finally again order sequence while until begins "
    "starts stops",
    "Object/ObjectSpatialRelation": "left right above below under over behind beside between near inside outside top "
    "bottom middle corner front next",
    "Object/ObjectMoving": "moves moving moved slides sliding falls falling rises rising rolls rolling direction "
    "upward downward leftward rightward up down towards away",
    "Object/ObjectPartRelation": "part parts handle lid door leg wheel edge piece attached holding wearing",
    "Scene/SceneTransition": "transition cut changes turns becomes enters leaves scene",
    "Scene/SceneExistence": "room kitchen bedroom bathroom garden street outdoors indoors background place",
    "Object/ObjectExistence": "object exists contains absent there appears present",
    "Action/FineGrainedAction": "action opens opening closes closing picks puts takes throws runs walks sits stands "
    "eats drinks washes cooks jumps",
}  # fmt: skip
_LABELS = {word: label for label, words in reversed(_WORDS.items()) for word in words.split()}
_NUMBER = re.compile(r"\d+")
_TOKEN = re.compile(r"[a-z]+|\d+")


def _label(word: str) -> str | None:
    return "Attribute/Counting" if _NUMBER.fullmatch(word) else _LABELS.get(word)


def read_by_rules(query: str, reason: str, correction: str | None) -> list[str]:
    """The categories that a refusal's words point to; the fallback is that the object is not there."""
    asked = _TOKEN.findall(query.lower())
    corrected = _TOKEN.findall((correction or "").lower())
    changed = [word for word in asked if word not in corrected] + [word for word in corrected if word not in asked]
    for words in (changed if correction else [], _TOKEN.findall(reason.lower())):
        if labels := list(dict.fromkeys(label for word in words if (label := _label(word)))):
            return labels[:1]
    return ["Object/ObjectExistence"]


def with_rules(predictions: Sequence[Prediction]) -> list[Prediction]:
    """The predictions with the categories of their refusals; none for what refuses nothing."""

    def read(prediction: Prediction) -> list[str]:
        row = ScoredPrediction(prediction)
        if not row.is_true_negative:
            return []
        return read_by_rules(prediction.sample.query, row.response.answer or "", row.response.corrected_query)

    return [
        msgspec.structs.replace(prediction, categories=read(prediction))
        if prediction.sample.task_type == "refusable"
        else prediction
        for prediction in predictions
    ]
