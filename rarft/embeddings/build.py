"""Building a store: each distinct text encoded once, also where an earlier run was killed.

What is encoded is put aside every half minute, in a folder that no reader of the store looks into; the store
itself appears when it is whole.
"""

import time
from collections.abc import Iterable

from rarft.embeddings.encoder import SentenceEncoder, embedding_key
from rarft.embeddings.store import INDEX, ReferenceStore
from rarft.errors import InputError
from rarft.progress import progress
from rarft.storage.files import Location, exists, join_path, remove_folder

PARTIAL = ".unfinished"  # beside the store: what a run that is not done yet has encoded
_BATCH = 512  # texts
_SAVE_EVERY = 30.0  # seconds


def _known(folder: Location, encoder: SentenceEncoder) -> ReferenceStore:
    """What the folder's store holds; nothing where there is none, or none that can be used, which is told."""
    if not exists(folder, INDEX):
        return ReferenceStore.empty(encoder)
    try:
        return ReferenceStore.load(folder, encoder)
    except InputError as error:
        print(f"embed: encoding anew, since {error}", flush=True)
        return ReferenceStore.empty(encoder)


def build_store(texts: Iterable[str], folder: Location, encoder: SentenceEncoder) -> tuple[ReferenceStore, int]:
    """Bring the store in `folder` up to these texts; what it holds already stays.

    Args:
        texts: references; one that recurs, or differs by white space alone, is encoded once.
        folder: of the store, or its URI; made where it is missing.
        encoder: a store of another one is replaced.

    Returns:
        The store, and how many texts were encoded.
    """
    store = _known(folder, encoder)
    store.merge(_known(join_path(folder, PARTIAL), encoder))
    wanted = {embedding_key(encoder.fingerprint, text): text for text in texts}
    # Of like length together, so that little of a batch is padding.
    missing = sorted((text for key, text in wanted.items() if key not in store), key=lambda text: (len(text), text))
    saved = time.monotonic()
    batches = [missing[start : start + _BATCH] for start in range(0, len(missing), _BATCH)]
    for batch in progress(batches, "encoding", unit=f" x {_BATCH} texts"):
        store.add(batch)
        if time.monotonic() - saved > _SAVE_EVERY:
            store.save(join_path(folder, PARTIAL))
            saved = time.monotonic()
    if missing or not exists(folder, INDEX):
        store.save(folder)
    remove_folder(join_path(folder, PARTIAL))
    return store, len(missing)
