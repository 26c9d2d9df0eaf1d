"""Store of the reference queries' embeddings.

`embeddings.safetensors` contains unit vectors, float32 of shape (N, D). `index.json` maps keys to rows and identifies
the encoder; a store of another encoder is rejected.
"""

from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path

import msgspec
import numpy as np
import xxhash
from numpy.typing import NDArray
from safetensors.numpy import save

from rarft.embeddings.encoder import SentenceEncoder, default_encoder, embedding_key
from rarft.errors import InputError
from rarft.storage.location import Location

EMBEDDINGS = "embeddings.safetensors"
INDEX = "index.json"

# The composition of a batch changes a similarity by up to 2e-7; rounding keeps rewards independent of it.
DECIMALS = 5


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

    def __init__(self, encoder: SentenceEncoder, rows: dict[str, int], embeddings_ND: NDArray[np.float32]) -> None:
        self._encoder = encoder
        self._rows = rows
        self._embeddings_ND = embeddings_ND
        self._added: dict[str, NDArray[np.float32]] = {}
        self.misses = 0

    @classmethod
    def empty(cls, encoder: SentenceEncoder) -> "ReferenceStore":
        """Return an empty store."""
        return cls(encoder, {}, np.zeros((0, encoder.dimension), np.float32))

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
        return cls(encoder, index.rows, embeddings_ND)

    def add(self, texts: list[str]) -> None:
        """Encode the texts that are not in the store, in one batch."""
        keys = {embedding_key(self._encoder.fingerprint, text): text for text in texts}
        new = {key: text for key, text in keys.items() if key not in self}
        self._added.update(zip(new, self._encoder.encode(list(new.values())), strict=True))

    def merge(self, other: "ReferenceStore") -> None:
        """Add the embeddings of another store of the same encoder."""
        for key, row in other._rows.items():
            if key not in self:
                self._added[key] = other._embeddings_ND[row]

    def save(self, location: Location) -> None:
        """Write the store atomically, with its rows sorted by key."""
        keys = sorted([*self._rows, *self._added])
        vectors = [self._vector(key) for key in keys]
        content = save({"embeddings": np.stack(vectors) if vectors else self._embeddings_ND})
        index = _Index(
            self._encoder.name,
            self._encoder.fingerprint,
            self._encoder.dimension,
            _checksum(content, keys),
            {key: row for row, key in enumerate(keys)},
        )
        with location.write_files(last=INDEX) as temporary:
            (temporary / EMBEDDINGS).write_bytes(content)
            (temporary / INDEX).write_bytes(msgspec.json.encode(index) + b"\n")

    def __contains__(self, key: object) -> bool:
        return key in self._rows or key in self._added

    def __len__(self) -> int:
        return len(self._rows) + len(self._added)

    def _vector(self, key: str) -> NDArray[np.float32]:
        return self._added[key] if key in self._added else self._embeddings_ND[self._rows[key]]

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
            keys = [embedding_key(self._encoder.fingerprint, reference) for reference in references]
            cosines = [float(vectors[text] @ self._vector(key)) for key in keys]
            similarities.append([round(min(1.0, max(-1.0, cosine)), DECIMALS) for cosine in cosines])
        return similarities


@cache
def default_store() -> ReferenceStore:
    """Return one store of the default encoder per process; it starts empty and caches references."""
    return ReferenceStore.empty(default_encoder())
