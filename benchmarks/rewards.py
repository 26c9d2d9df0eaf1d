"""CPU time of the correction reward and of building a reference store: `python benchmarks/rewards.py`.

Compares the reward with the training guide's loop, which encodes each correction and every one of its references one
text at a time; here, corrections are encoded in one batch and references are looked up. Then compares building a store
with one call of the encoder for the same texts. Medians.
"""

import functools
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from rarft.completion import render_completion
from rarft.embeddings.encoder import SentenceEncoder, default_encoder
from rarft.embeddings.store import ReferenceStore, build_store
from rarft.rewards.explain_correction import ExplainCorrection
from rarft.storage.location import LocalFolder

WORDS = ("person", "dog", "opens", "closes", "door", "window", "runs", "sits", "table", "red", "blue", "walks")
STORE = 100_000  # texts
COMPLETIONS, REFERENCES = 8, 5


def cpu_seconds(function: Callable[[], Any], repeats: int) -> float:
    """Return the median CPU seconds of a function."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return statistics.median(times)


def sentences(number: int, seed: int) -> list[str]:
    """Return distinct sentences of 4 to 14 words."""
    rng = random.Random(seed)
    return [f"{' '.join(rng.choices(WORDS, k=rng.randint(3, 13)))} {index}" for index in range(number)]


def guide_loop(encoder: SentenceEncoder, corrections: list[str], references: list[list[str]]) -> list[float]:
    """Return rewards as the training guide computes them, one text at a time."""
    rewards = []
    for correction, candidates in zip(corrections, references, strict=True):
        vector = encoder.encode([correction])[0]
        best = max(float(vector @ encoder.encode([candidate])[0]) for candidate in candidates)
        rewards.append(1.0 + max(0.0, best - 0.5))
    return rewards


def compare_reward(encoder: SentenceEncoder) -> None:
    """Compare the reward with the guide's loop and print."""
    corrections = sentences(COMPLETIONS, 1)
    references = [sentences(REFERENCES, 2)] * COMPLETIONS  # a group's completions share their references
    with tempfile.TemporaryDirectory() as temporary:
        folder = LocalFolder(Path(temporary))
        store, _ = build_store(references[0], folder, encoder)
        vectors = np.random.default_rng(0).normal(size=(STORE, encoder.dimension)).astype(np.float32)
        store._added |= {encoder.key(f"filler {row}"): vector for row, vector in enumerate(vectors)}
        store.save(folder)
        start = time.perf_counter()
        loaded = ReferenceStore.load(folder, encoder)
        loading = time.perf_counter() - start
        reward = ExplainCorrection(loaded)
        completions = [render_completion("t", "no such moment", correction) for correction in corrections]
        columns: dict[str, Any] = {"task_type": ["refusable"] * COMPLETIONS, "reference_queries": references}
        pairs = zip(reward(completions, **columns), guide_loop(encoder, corrections, references), strict=True)
        difference = max(abs(a - b) for a, b in pairs)
        reward_s = cpu_seconds(lambda: reward(completions, **columns), 20)
        guide_s = cpu_seconds(lambda: guide_loop(encoder, corrections, references), 5)
        print(f"{COMPLETIONS} completions with {REFERENCES} references each, a store of {len(loaded):,} texts")
        print(f"  guide's loop {1000 * guide_s:8.1f} ms CPU")
        print(f"  look-up      {1000 * reward_s:8.1f} ms CPU, {guide_s / reward_s:.1f} times less")
        print(f"  largest difference {difference:.1e}, loading the store {1000 * loading:.0f} ms")


def compare_building(encoder: SentenceEncoder) -> None:
    """Compare building a store with one call of the encoder and print."""
    texts = sentences(4000, 3)
    ratios = []
    for _ in range(3):
        encoding = cpu_seconds(
            lambda: encoder._model.encode(texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False), 1
        )
        with tempfile.TemporaryDirectory() as temporary:
            build = functools.partial(build_store, texts, LocalFolder(Path(temporary)), encoder)
            ratios.append(encoding / cpu_seconds(build, 1))
    print(f"building a store of {len(texts):,} texts: {statistics.median(ratios):.2f} of the encoder's throughput")


def main() -> None:
    """Print both comparisons."""
    encoder = default_encoder()
    compare_reward(encoder)
    compare_building(encoder)


if __name__ == "__main__":
    main()
