"""Construction of an embedding store: each distinct text is encoded once, also across interrupted runs.

Intermediate results are saved every half minute in a subfolder that readers of the store ignore. The store itself is
written when it is complete.
"""

import logging
import time
from collections.abc import Iterable

from rarft.embeddings.encoder import SentenceEncoder, embedding_key
from rarft.embeddings.store import INDEX, ReferenceStore
from rarft.errors import InputError
from rarft.progress import progress
from rarft.storage.location import Location

logger = logging.getLogger(__name__)

PARTIAL = ".unfinished"  # subfolder with the intermediate results
_BATCH_SIZE = 512  # texts
_SAVE_INTERVAL_S = 30.0


def _load_existing(location: Location, encoder: SentenceEncoder) -> ReferenceStore:
    """Return the store in a folder; an empty one if there is none, or it cannot be used."""
    if not location.exists(INDEX):
        return ReferenceStore.empty(encoder)
    try:
        return ReferenceStore.load(location, encoder)
    except InputError as error:
        logger.warning("re-encoding: %s", error)
        return ReferenceStore.empty(encoder)


def build_store(texts: Iterable[str], location: Location, encoder: SentenceEncoder) -> tuple[ReferenceStore, int]:
    """Create or extend the store in a folder so that it contains these texts.

    Args:
        texts: Reference queries; repeated texts, and texts that differ only in whitespace, are encoded once.
        location: Folder of the store; created if missing.
        encoder: Sentence encoder; an existing store of another encoder is replaced.

    Returns:
        The store, and the number of texts that were encoded.
    """
    partial = location.child(PARTIAL)
    store = _load_existing(location, encoder)
    store.merge(_load_existing(partial, encoder))
    by_key = {embedding_key(encoder.fingerprint, text): text for text in texts}
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
