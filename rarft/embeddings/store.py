"""Store of the reference queries' embeddings. Each distinct text is encoded once, also across interrupted runs.

`embeddings.safetensors` contains unit vectors, float32 of shape (N, D). `index.json` maps keys to rows and identifies
the encoder; a store of another encoder is rejected.
"""

import logging
import time
from collections.abc import Iterable
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray
from safetensors.numpy import save

from rarft.embeddings.encoder import SentenceEncoder, default_encoder
from rarft.errors import InputError
from rarft.progress import progress
from rarft.storage.location import Location

EMBEDDINGS = "embeddings.safetensors"
INDEX = "index.json"

_PARTIAL = ".unfinished"  # subfolder with the intermediate results of `build_store`
_BATCH_SIZE = 512  # texts
_SAVE_INTERVAL_S = 30.0
# The composition of a batch changes a similarity by up to 2e-7; rounding keeps rewards independent of it.
_DECIMALS = 5
logger = logging.getLogger(__name__)


class _Index(msgspec.Struct):
    """Content of `index.json`; the values of `rows` count up from 0."""

    encoder: str
    fingerprint: str
    dimension: int
    checksum: str
    rows: dict[str, int]


def _checksum(embeddings: bytes | mmap, keys: list[str]) -> str:
    """Return a fast checksum of everything that a lookup reads; it detects damage, not tampering."""
    digest = xxhash.xxh3_128(embeddings)
    digest.update("\n".join(keys).encode())
    return digest.hexdigest()


def _map(path: Path) -> tuple[mmap, NDArray[np.float32]]:
    """Return a memory-mapped safetensors file and its embeddings (N, D), which the ranks of a node share.

    Layout: eight bytes with the length of a JSON header, the header, the tensors.
    """
    with path.open("rb") as file:
        content = mmap(file.fileno(), 0, access=ACCESS_READ)
    start = 8 + int.from_bytes(content[:8], "little")
    entry = msgspec.json.decode(content[8:start])["embeddings"]
    N, D = entry["shape"]
    return content, np.frombuffer(content, np.float32, N * D, start + entry["data_offsets"][0]).reshape(N, D)


class ReferenceStore:
    """Embeddings by text. A text that is not in the store is encoded, added and counted.

    Attributes:
        misses: Number of texts that were looked up but not in the store.
    """

    def __init__(self, encoder: SentenceEncoder) -> None:
        """Create an empty store."""
        self._encoder = encoder
        self._rows: dict[str, int] = {}
        self._embeddings_ND = np.zeros((0, encoder.dimension), np.float32)
        self._added: dict[str, NDArray[np.float32]] = {}
        self.misses = 0

    @classmethod
    def load(cls, location: Location, encoder: SentenceEncoder) -> "ReferenceStore":
        """Read a store from a folder.

        Raises:
            InputError: The store does not exist, is damaged, or was made by another encoder.
        """
        try:
            with location.download((INDEX, EMBEDDINGS)) as folder:
                index = msgspec.json.decode((folder / INDEX).read_bytes(), type=_Index)
                content, embeddings_ND = _map(folder / EMBEDDINGS)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise InputError(f"{location}: cannot be read ({error}); run `rarft embed` again") from error
        if (
            index.checksum != _checksum(content, list(index.rows))
            or list(index.rows.values()) != list(range(len(index.rows)))
            or embeddings_ND.shape != (len(index.rows), index.dimension)
        ):
            raise InputError(f"{location}: {INDEX} does not match {EMBEDDINGS}; run `rarft embed` again")
        if index.fingerprint != encoder.fingerprint:
            raise InputError(
                f"{location}: made by {index.encoder}, whose files differ from those of {encoder.name}; run "
                "`rarft embed` with the encoder of the training"
            )
        store = cls(encoder)
        store._rows, store._embeddings_ND = index.rows, embeddings_ND
        return store

    def add(self, texts: list[str]) -> None:
        """Encode the texts that are not in the store, in one batch."""
        new = {key: text for text in texts if (key := self._encoder.key(text)) not in self}
        self._added.update(zip(new, self._encoder.encode(list(new.values())), strict=True))

    def merge(self, other: "ReferenceStore") -> None:
        """Add the embeddings of another store of the same encoder."""
        self._added |= {key: other._embeddings_ND[row] for key, row in other._rows.items() if key not in self}

    def save(self, location: Location) -> None:
        """Write the store atomically, with its rows sorted by key."""
        keys = sorted([*self._rows, *self._added])
        vectors = [self._vector(key) for key in keys]
        content = save({"embeddings": np.stack(vectors) if vectors else self._embeddings_ND})
        encoder, rows = self._encoder, {key: row for row, key in enumerate(keys)}
        index = _Index(encoder.name, encoder.fingerprint, encoder.dimension, _checksum(content, keys), rows)
        with location.write_files(last=INDEX) as temporary:
            (temporary / EMBEDDINGS).write_bytes(content)
            (temporary / INDEX).write_bytes(msgspec.json.encode(index) + b"\n")

    def __contains__(self, key: object) -> bool:
        return key in self._rows or key in self._added

    def __len__(self) -> int:
        return len(self._rows) + len(self._added)

    def _vector(self, key: str) -> NDArray[np.float32]:
        return self._added[key] if key in self._added else self._embeddings_ND[self._rows[key]]

    def vectors(self, texts: list[str]) -> NDArray[np.float32]:
        """Return the embeddings of texts, float32 of shape (N, D). Texts that are not in the store are encoded."""
        self.add(texts)
        return np.stack([self._vector(self._encoder.key(text)) for text in texts])

    def similarities(self, pairs: list[tuple[str, list[str]]]) -> list[list[float]]:
        """Return for each (text, references) the cosine similarity to each reference, in [-1, 1], rounded.

        Texts are encoded in one batch, references are looked up.
        """
        size = len(self)
        self.add([reference for _, references in pairs for reference in references])
        self.misses += len(self) - size
        distinct = list(dict.fromkeys(text for text, _ in pairs))
        vectors = dict(zip(distinct, self._encoder.encode(distinct), strict=True))
        similarities = []
        for text, references in pairs:
            cosines = [float(vectors[text] @ self._vector(self._encoder.key(reference))) for reference in references]
            similarities.append([round(min(1.0, max(-1.0, cosine)), _DECIMALS) for cosine in cosines])
        return similarities


@cache
def default_store() -> ReferenceStore:
    """Return one store of the default encoder per process; it starts empty and caches references."""
    return ReferenceStore(default_encoder())


def _load_existing(location: Location, encoder: SentenceEncoder) -> ReferenceStore:
    """Return the store in a folder; an empty one if there is none, or it cannot be used."""
    if location.exists(INDEX):
        try:
            return ReferenceStore.load(location, encoder)
        except InputError as error:
            logger.warning("re-encoding: %s", error)
    return ReferenceStore(encoder)


def build_store(texts: Iterable[str], location: Location, encoder: SentenceEncoder) -> tuple[ReferenceStore, int]:
    """Create or extend the store in a folder so that it contains these texts.

    Intermediate results are saved every half minute in a subfolder that readers of the store ignore. The store itself
    is written when it is complete. An existing store of another encoder is replaced.

    Args:
        texts: Reference queries; repeated texts, and texts that differ only in whitespace, are encoded once.
        location: Folder of the store; created if missing.
        encoder: Sentence encoder.

    Returns:
        The store, and the number of texts that were encoded.
    """
    partial = location.child(_PARTIAL)
    store = _load_existing(location, encoder)
    store.merge(_load_existing(partial, encoder))
    by_key = {encoder.key(text): text for text in texts}
    # Texts of similar length share a batch, which keeps padding small.
    missing = sorted((text for key, text in by_key.items() if key not in store), key=lambda text: (len(text), text))
    saved = time.monotonic()
    batches = [missing[start : start + _BATCH_SIZE] for start in range(0, len(missing), _BATCH_SIZE)]
    for batch in progress(batches, f"encoding {len(missing)} texts", unit=" batches"):
        store.add(batch)
        if time.monotonic() - saved > _SAVE_INTERVAL_S:
            store.save(partial)
            saved = time.monotonic()
    if missing or not location.exists(INDEX):
        store.save(location)
    partial.remove()
    logger.info("%d distinct reference queries, %d newly encoded with %s", len(store), len(missing), encoder.name)
    return store, len(missing)
