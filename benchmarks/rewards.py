"""The correction reward against the guide's own loop: `python benchmarks/rewards.py`.

The guide encodes each completion's correction, and every reference of it, one text at a time. Here one batch
encodes the corrections and references are looked up. Then the throughput of building a store against one raw
call of the encoder over the same texts. CPU seconds, medians.
"""

import random
import statistics
import tempfile
import time
from typing import Any

import numpy as np
from timing import cpu_seconds

from rarft.completion import render_completion
from rarft.embeddings.build import build_store
from rarft.embeddings.encoder import SentenceEncoder, default_encoder, embedding_key
from rarft.embeddings.store import ReferenceStore
from rarft.rewards.explain_correction import ExplainCorrection
from rarft.storage.location import parse_location

WORDS = ("person", "dog", "opens", "closes", "door", "window", "runs", "sits", "table", "red", "blue", "walks")
STORE = 100_000  # texts
COMPLETIONS, REFERENCES = 8, 5


def sentences(number: int, seed: int) -> list[str]:
    """Distinct sentences of 4 to 14 words."""
    rng = random.Random(seed)
    return [f"{' '.join(rng.choices(WORDS, k=rng.randint(3, 13)))} {index}" for index in range(number)]


def guide_loop(encoder: SentenceEncoder, corrections: list[str], references: list[list[str]]) -> list[float]:
    """Rewards as the guide's own code computes them: one text after the other."""
    rewards = []
    for correction, candidates in zip(corrections, references, strict=True):
        vector = encoder.encode([correction])[0]
        best = max(float(vector @ encoder.encode([candidate])[0]) for candidate in candidates)
        rewards.append(1.0 + max(0.0, best - 0.5))
    return rewards


def main() -> None:
    """Print both comparisons."""
    encoder = default_encoder()
    corrections = sentences(COMPLETIONS, 1)
    references = [sentences(REFERENCES, 2)] * COMPLETIONS  # a group's completions share their references
    with tempfile.TemporaryDirectory() as folder:
        store, _ = build_store(references[0], parse_location(folder), encoder)
        rng = np.random.default_rng(0)
        vectors = rng.normal(size=(STORE, encoder.dimension)).astype(np.float32)
        store._added |= {
            embedding_key(encoder.fingerprint, f"filler {row}"): vector for row, vector in enumerate(vectors)
        }
        store.save(parse_location(folder))
        started = time.perf_counter()
        loaded = ReferenceStore.load(parse_location(folder), encoder)
        loading = time.perf_counter() - started
        reward = ExplainCorrection(loaded)
        completions = [render_completion("t", "no such moment", correction) for correction in corrections]
        columns: dict[str, Any] = {"task_type": ["refusable"] * COMPLETIONS, "reference_queries": references}
        difference = max(
            abs(a - b)
            for a, b in zip(reward(completions, **columns), guide_loop(encoder, corrections, references), strict=True)
        )
        ours = cpu_seconds(lambda: reward(completions, **columns), 20)
        guide = cpu_seconds(lambda: guide_loop(encoder, corrections, references), 5)
        print(f"{COMPLETIONS} completions x {REFERENCES} references, a store of {len(loaded):,} texts")
        print(f"  the guide's loop {1000 * guide:8.1f} ms CPU")
        print(
            f"  looked up        {1000 * ours:8.1f} ms CPU, {guide / ours:.1f} times less; difference {difference:.1e}"
        )
        print(f"  loading the store {1000 * loading:.0f} ms")
    texts = sentences(4000, 3)
    raw, built = [], []
    for _ in range(3):
        started = time.process_time()
        encoder._model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False)
        raw.append(time.process_time() - started)
        with tempfile.TemporaryDirectory() as folder:
            started = time.process_time()
            build_store(texts, parse_location(folder), encoder)
            built.append(time.process_time() - started)
    ratio = statistics.median(a / b for a, b in zip(raw, built, strict=True))
    print(
        f"building a store of {len(texts):,} texts: {ratio:.2f} of the throughput of one raw call (median of 3 pairs)"
    )


if __name__ == "__main__":
    main()
