"""Reference queries, encoded once and looked up ever after.

`embeddings.safetensors` holds the unit vectors, float32 (N, D); `index.json` maps keys to rows and says which
encoder made them. A store of another encoder is refused, never mixed in. Both lie in a folder or under a
prefix of an object store.
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
from rarft.storage.files import Location, open_local_files, write_files

EMBEDDINGS = "embeddings.safetensors"
INDEX = "index.json"

# Another composition of a batch moves a similarity by up to 2e-7; a reward must not move with it.
DECIMALS = 5


class _Index(msgspec.Struct):
    """What `index.json` holds; `rows` counts up from 0, in the order of the file."""

    encoder: str
    fingerprint: str
    dimension: int
    checksum: str
    rows: dict[str, int]


def _checksum(embeddings: bytes | mmap, keys: list[str]) -> str:
    """Of everything that a look-up reads. Made for speed: it guards against damage, not against malice."""
    digest = xxhash.xxh3_128(embeddings)
    digest.update("\n".join(keys).encode())
    return digest.hexdigest()


def _map(path: Path) -> tuple[mmap, NDArray[np.float32]]:
    """A store's file and the embeddings in it, mapped and not copied, so that the ranks of a node share one copy.

    The layout of safetensors: eight bytes with the length of a JSON header, the header, the tensors.
    """
    with path.open("rb") as file:
        content = mmap(file.fileno(), 0, access=ACCESS_READ)
    start = 8 + int.from_bytes(content[:8], "little")
    entry = msgspec.json.decode(content[8:start])["embeddings"]
    N, D = entry["shape"]
    return content, np.frombuffer(content, np.float32, N * D, start + entry["data_offsets"][0]).reshape(N, D)


class ReferenceStore:
    """Embeddings by text; a text that is not there is encoded, kept and counted.

    Attributes:
        misses: how many texts were looked up and not found since the store was loaded.
    """

    def __init__(self, encoder: SentenceEncoder, rows: dict[str, int], embeddings_ND: NDArray[np.float32]) -> None:
        self._encoder = encoder
        self._rows = rows
        self._embeddings_ND = embeddings_ND
        self._added: dict[str, NDArray[np.float32]] = {}
        self.misses = 0

    @classmethod
    def empty(cls, encoder: SentenceEncoder) -> "ReferenceStore":
        """A store in which every reference is a miss at first."""
        return cls(encoder, {}, np.zeros((0, encoder.dimension), np.float32))

    @classmethod
    def load(cls, place: Location, encoder: SentenceEncoder) -> "ReferenceStore":
        """Read a store.

        Raises:
            InputError: it is not there, damaged, or made by another encoder.
        """
        try:
            with open_local_files(place, (INDEX, EMBEDDINGS), "--embeddings") as folder:
                index = msgspec.json.decode((folder / INDEX).read_bytes(), type=_Index)
                content, embeddings_ND = _map(folder / EMBEDDINGS)
        except (OSError, ValueError, KeyError, IndexError) as error:
            raise InputError(f"--embeddings {place}: cannot be read ({error}); run `rarft embed` again") from error
        if (
            index.checksum != _checksum(content, list(index.rows))
            or list(index.rows.values()) != list(range(len(index.rows)))
            or embeddings_ND.shape != (len(index.rows), index.dimension)
        ):
            raise InputError(
                f"--embeddings {place}: index and embeddings do not belong together; run `rarft embed` again"
            )
        if index.fingerprint != encoder.fingerprint:
            raise InputError(
                f"--embeddings {place}: made by {index.encoder}, not by the files of {encoder.name}; "
                "run `rarft embed` with the encoder that training uses"
            )
        return cls(encoder, index.rows, embeddings_ND)

    def add(self, texts: list[str]) -> None:
        """Encode texts that are not there, in one batch."""
        keys = {embedding_key(self._encoder.fingerprint, text): text for text in texts}
        new = {key: text for key, text in keys.items() if key not in self}
        self._added.update(zip(new, self._encoder.encode(list(new.values())), strict=True))

    def merge(self, other: "ReferenceStore") -> None:
        """Take over what another store of the same encoder holds."""
        for key, row in other._rows.items():
            if key not in self:
                self._added[key] = other._embeddings_ND[row]

    def save(self, place: Location) -> None:
        """Write the store, its rows in the order of their keys; complete or not there."""
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
        with write_files(place, last=INDEX) as temporary:
            (temporary / EMBEDDINGS).write_bytes(content)
            (temporary / INDEX).write_bytes(msgspec.json.encode(index) + b"\n")

    def __contains__(self, key: object) -> bool:
        return key in self._rows or key in self._added

    def __len__(self) -> int:
        return len(self._rows) + len(self._added)

    def _vector(self, key: str) -> NDArray[np.float32]:
        return self._added[key] if key in self._added else self._embeddings_ND[self._rows[key]]

    def _embedding(self, text: str) -> NDArray[np.float32]:
        return self._vector(embedding_key(self._encoder.fingerprint, text))

    def _encode_missing(self, texts: list[str]) -> None:
        held = len(self)
        self.add(texts)
        self.misses += len(self) - held

    def similarities(self, pairs: list[tuple[str, list[str]]]) -> list[list[float]]:
        """For each (text, references) the cosine similarity to each reference, in [-1, 1], rounded.

        The texts are encoded in one batch, the references looked up.
        """
        self._encode_missing([reference for _, references in pairs for reference in references])
        distinct = list(dict.fromkeys(text for text, _ in pairs))
        vectors = dict(zip(distinct, self._encoder.encode(distinct), strict=True))
        found = []
        for text, references in pairs:
            cosines = [float(vectors[text] @ self._embedding(reference)) for reference in references]
            found.append([round(min(1.0, max(-1.0, cosine)), DECIMALS) for cosine in cosines])
        return found


@cache
def default_store() -> ReferenceStore:
    """A store of the default encoder that begins empty and remembers what it was asked."""
    return ReferenceStore.empty(default_encoder())
