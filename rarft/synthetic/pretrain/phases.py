"""Phases of pretraining: their queries and target completions."""

from dataclasses import dataclass

import numpy as np

from rarft import completion
from rarft.synthetic import dataset, tiny_model


@dataclass(frozen=True)
class Phase:
    """One phase of training of the whole model."""

    name: str
    steps: int
    learning_rate: float  # of the plateau
    mismatch_rate: float  # fraction of the queries
    answered_mismatch_rate: float = 0.0  # fraction of the mismatched queries that are answered with a segment
    wrong_correction_rate: float = 0.0  # fraction of the refusals with a wrong correction: the query or NIL, half each

    def query(self, scene: dataset.Scene, rng: np.random.Generator) -> dataset.Scene:
        """Return a random query for a scene's clip, as the scene that it describes."""
        if rng.random() >= self.mismatch_rate:
            return scene
        return dataset.mismatch(scene, rng, changes=int(rng.choice([1, 1, 1, 2, 3])))[0]

    def completion(self, scene: dataset.Scene, query: dataset.Scene, rng: np.random.Generator) -> str:
        """Return a random target completion."""
        if query != scene and rng.random() < self.answered_mismatch_rate:
            think = tiny_model.verdicts(scene, query)
            return completion.render_completion(think, completion.format_segment(scene.segment))
        correction = None
        if query != scene and rng.random() < self.wrong_correction_rate:
            correction = query.description if rng.random() < 0.5 else completion.NO_CORRECTION
        return tiny_model.truthful_completion(scene, query, correction)
