"""Time and memory of negatives by number of queries: `python -m benchmarks.negatives [QUERIES ...]`.

Makes data with random queries of a small vocabulary and random embeddings, three texts per video, and runs the kinds
`shuffled` and `rules` in its own process. Prints CPU seconds and peak memory of the process; nothing is encoded.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from zlib import crc32

import numpy as np

from rarft.errors import InputError
from rarft.negatives.build import add_negatives
from rarft.negatives.config import NegativeSettings
from rarft.negatives.lexicon import packaged_lexicon
from rarft.storage.location import LocalFolder

_VERBS = ("puts", "takes", "opens", "closes", "holds", "throws", "washes", "drops", "fixes", "kicks")
_NOUNS = (
    "glass", "bottle", "book", "laptop", "phone", "towel", "pillow", "blanket", "box", "bag", "sandwich", "cookie",
    "broom", "picture", "jacket", "shirt", "shoe", "camera", "bowl", "dish",
)  # fmt: skip
_PLACES = ("table", "couch", "bed", "chair", "shelf", "counter", "kitchen", "bathroom", "garage", "office")
_DIMENSION = 384


class _RandomStore:
    """Stand-in for an encoded store: embeddings that depend on the hash of a text."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self._words = rng.normal(size=(4096, _DIMENSION)).astype(np.float32)

    def vectors(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors, float32 of shape (N, D); texts with common words are similar."""
        sums = np.stack([self._words[[crc32(word.encode()) % 4096 for word in text.split()]].sum(0) for text in texts])
        return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def write_data(path: Path, queries: int) -> None:
    """Write answerable rows, two per video, with a caption each that is not a query."""
    rng = random.Random(0)

    def sentence(index: int) -> str:
        return (
            f"person {rng.choice(_VERBS)} the {rng.choice(_NOUNS)} on the {rng.choice(_PLACES)} with w{index % 997}."
        )

    with path.open("w") as file:
        for index in range(queries):
            query = sentence(index)
            row = {
                "id": f"{index:016x}", "video": f"/data/videos/{index // 2}.mp4", "query": query,
                "task_type": "answerable", "segments": [[1.0, 4.0]], "segment": [1.0, 4.0], "duration": 30.0,
                "crop": None, "gt_answer": "1.0 to 4.0", "contrast_answer": None, "reference_queries": [query],
                "categories": [], "difficulty": "original",
                "captions": [[1.0, 4.0, query], [5.0, 8.0, sentence(index + 1)]],
                "source": {"file": "x.json", "item": index, "query": 0}, "extra": {},
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")


def measure(path: Path, out: str) -> None:
    """Add two queries per item, and print CPU seconds and peak memory in megabytes."""
    store = _RandomStore()
    before = resource.getrusage(resource.RUSAGE_SELF)
    settings = NegativeSettings(per_item=2)
    report = add_negatives(path, str(path), LocalFolder(Path(out)), packaged_lexicon(), settings, lambda _: store)  # type: ignore[arg-type,return-value]
    after = resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu": cpu, "memory": after.ru_maxrss / 1024, "made": report["counts"]["made"]}))


def main() -> None:
    """Measure each number of queries and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queries", type=int, nargs="*", default=[1_000, 10_000, 100_000])
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(Path(arguments.measure[0]), arguments.measure[1])
        return
    print(f"{'queries':>10} {'made':>10} {'CPU':>8} {'memory':>9}")
    with tempfile.TemporaryDirectory() as folder:
        for size in arguments.queries:
            source = Path(folder) / "riq.jsonl"
            write_data(source, size)
            command = [sys.executable, "-m", "benchmarks.negatives", "--measure", str(source), f"{folder}/out.jsonl"]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
            if done.returncode:
                raise InputError(f"{size} queries: the measurement exited with {done.returncode}")
            found = json.loads(done.stdout.splitlines()[-1])
            print(f"{size:>10,} {found['made']:>10,} {found['cpu']:>6.1f} s {found['memory']:>6.0f} MB", flush=True)


if __name__ == "__main__":
    main()
