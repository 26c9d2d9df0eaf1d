"""Similarities of texts about videos, exact in every order of summation."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from rarft.annotations.schema import Difficulty

if TYPE_CHECKING:  # it imports packages that other steps do not need
    from rarft.embeddings.store import ReferenceStore

# Components of unit vectors are rounded to multiples of 2^-12. Products are then multiples of 2^-24, and sums below 1
# are exact in float32: a similarity does not depend on the number of threads or on the batch.
_SCALE = 4096
_BATCH = 4096  # texts
# Similarity to the nearest text about the video, for all-MiniLM-L6-v2. The refusable queries of HI-VTG Charades have a
# mean of 0.52 (easy), 0.60 (medium) and 0.74 (hard); these limits separate the three best.
MEDIUM, HARD = 0.5, 0.7
DUPLICATE = 0.85  # default of the similarity from which on two queries may mean the same moment


def difficulty_of(similarity: float) -> Difficulty:
    """Return the difficulty of a refusable query by its similarity to the nearest text about its video."""
    if similarity >= HARD:
        return "hard"
    return "medium" if similarity >= MEDIUM else "easy"


def _quantize(vectors_ND: NDArray[np.float32]) -> NDArray[np.int16]:
    return np.rint(vectors_ND * _SCALE).astype(np.int16)


def _restore(vectors_ND: NDArray[np.int16]) -> NDArray[np.float32]:
    return vectors_ND.astype(np.float32) / np.float32(_SCALE)


class TextVectors:
    """Rounded embeddings of distinct texts, as int16 to save memory."""

    def __init__(self, texts: Iterable[str], store: "ReferenceStore") -> None:
        """
        Args:
            texts: Texts; those that are not in the store are encoded.
            store: Embeddings.
        """
        self._rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        self._store = store
        names = list(self._rows)
        batches = [names[start : start + _BATCH] for start in range(0, len(names), _BATCH)]
        self._vectors_ND = np.concatenate([_quantize(store.vectors(batch)) for batch in batches])

    def get(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the vectors of known texts, float32 of shape (N, D)."""
        return _restore(self._vectors_ND[[self._rows[text] for text in texts]])

    def similarities(self, pairs: Sequence[tuple[str, Sequence[str]]]) -> list[float]:
        """Return the similarity of each text, known or not, to the nearest of its known texts."""
        if not pairs:
            return []
        vectors_ND = _restore(_quantize(self._store.vectors([text for text, _ in pairs])))
        return [
            float((self.get(others) @ vector_D).max()) for vector_D, (_, others) in zip(vectors_ND, pairs, strict=True)
        ]
