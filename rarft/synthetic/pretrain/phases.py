"""What each phase of the cold start asks, and what it has the model say."""

from dataclasses import dataclass

import numpy as np

from rarft import completion
from rarft.synthetic import dataset, tiny_model


@dataclass(frozen=True)
class Phase:
    """One stretch of training of the whole model.

    Attributes:
        name: of the phase.
        steps: of the optimizer.
        learning_rate: of its plateau.
        mismatched: share of the queries that are mismatched; the others match.
        answered: share of the mismatched queries that get a segment all the same.
        careless: share of the refusals whose correction repeats the query, or says NIL, half of them each.
    """

    name: str
    steps: int
    learning_rate: float
    mismatched: float
    answered: float = 0.0
    wrong_correction_rate: float = 0.0

    def query(self, scene: dataset.Scene, rng: np.random.Generator) -> dataset.Scene:
        """What is asked of a scene's clip, as the scene that it describes."""
        if rng.random() >= self.mismatched:
            return scene
        return dataset.mismatch(scene, rng, changes=int(rng.choice([1, 1, 1, 2, 3])))[0]

    def completion(self, scene: dataset.Scene, query: dataset.Scene, rng: np.random.Generator) -> str:
        """What the model is to say."""
        if query != scene and rng.random() < self.answered:
            return completion.render_completion(
                tiny_model.verdicts(scene, query), completion.format_segment(scene.segment)
            )
        correction = None
        if query != scene and rng.random() < self.wrong_correction_rate:
            correction = query.description if rng.random() < 0.5 else completion.NO_CORRECTION
        return tiny_model.truthful_completion(scene, query, correction)
