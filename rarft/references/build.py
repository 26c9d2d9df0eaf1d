"""Building a store: each distinct text encoded once, also where an earlier run was killed.

What is encoded is put aside every half minute, in a folder that no reader of the store looks into; the store
itself appears when it is whole.
"""

import shutil
import time
from collections.abc import Iterable
from pathlib import Path

from rarft.errors import InputError
from rarft.progress import progress
from rarft.references.encoder import SentenceEncoder, key_of
from rarft.references.store import INDEX, ReferenceStore

PARTIAL = ".unfinished"  # beside the store: what a run that is not done yet has encoded
_BATCH = 512  # texts
_SAVE_EVERY = 30.0  # seconds


def _known(folder: Path, encoder: SentenceEncoder) -> ReferenceStore:
    """What the folder's store holds; nothing where there is none, or none that can be used, which is told."""
    if not (folder / INDEX).exists():
        return ReferenceStore.empty(encoder)
    try:
        return ReferenceStore.load(str(folder), encoder)
    except InputError as error:
        print(f"embed: encoding anew, since {error}", flush=True)
        return ReferenceStore.empty(encoder)


def build_store(texts: Iterable[str], folder: Path, encoder: SentenceEncoder) -> tuple[ReferenceStore, int]:
    """Bring the store in `folder` up to these texts; what it holds already stays.

    Args:
        texts: references; one that recurs, or differs by white space alone, is encoded once.
        folder: of the store; made where it is missing.
        encoder: a store of another one is replaced.

    Returns:
        The store, and how many texts were encoded.
    """
    store = _known(folder, encoder)
    store.absorb(_known(folder / PARTIAL, encoder))
    wanted = {key_of(encoder.fingerprint, text): text for text in texts}
    # Of like length together, so that little of a batch is padding.
    missing = sorted((text for key, text in wanted.items() if key not in store), key=lambda text: (len(text), text))
    saved = time.monotonic()
    batches = [missing[start : start + _BATCH] for start in range(0, len(missing), _BATCH)]
    for batch in progress(batches, "encoding", unit=f" x {_BATCH} texts"):
        store.add(batch)
        if time.monotonic() - saved > _SAVE_EVERY:
            store.save(folder / PARTIAL)
            saved = time.monotonic()
    if missing or not (folder / INDEX).exists():
        store.save(folder)
    shutil.rmtree(folder / PARTIAL, ignore_errors=True)
    return store, len(missing)
