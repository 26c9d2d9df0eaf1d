"""A sentence encoder without weights: the mean of pseudo-random vectors of a text's words."""

import hashlib

import numpy as np

from rarft.storage.hashing import hash_text


class WordEncoder:
    """Texts with common words are similar. It has the interface of `SentenceEncoder`."""

    name, fingerprint, dimension = "words", "words", 64

    def key(self, text):
        return hash_text(text)

    def encode(self, texts):
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        vectors = np.stack([sum(map(self._word, text.lower().split())) for text in texts])
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def _word(self, word):
        seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
        return np.random.default_rng(seed).normal(size=self.dimension)
