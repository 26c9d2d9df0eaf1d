"""Split validated queries into a training and an evaluation part, by video."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, BinaryIO

import msgspec

from rarft.annotations.annotation_index import hash64
from rarft.annotations.parsing import base_name
from rarft.annotations.schema import Sample
from rarft.storage.hashing import hash_text

SPLIT_FILES = {"train": "riq.train.jsonl", "eval": "riq.eval.jsonl"}


def video_key(video: str) -> int:
    """Return a key of a video's base name, so that two paths of one video are in the same part."""
    return hash64(base_name(video))


class Splitter:
    """Counter of queries per video and task type, which assigns videos to parts."""

    def __init__(self, fraction: float, seed: int) -> None:
        """Set the fraction of the queries to train on, in (0, 1), and the seed for the order of the videos."""
        self._fraction, self._seed = fraction, seed
        self._queries: dict[int, list[int]] = {}  # video -> [answerable, refusable]

    def add(self, queries: Iterable[tuple[int, bool]]) -> None:
        """Add kept queries, each as its video's key and whether it is refusable."""
        for video, refusable in queries:
            self._queries.setdefault(video, [0, 0])[refusable] += 1

    def training_videos(self) -> frozenset[int]:
        """Return the videos to train on. They depend only on the seed and the set of queries, not on their order.

        Videos with only answerable, only refusable, and both kinds of queries are assigned separately, and videos with
        many queries before those with few. Both parts thus have the same balance.
        """
        strata: dict[tuple[bool, bool], list[int]] = defaultdict(list)
        for video, (answerable, refusable) in self._queries.items():
            strata[answerable > 0, refusable > 0].append(video)
        chosen: set[int] = set()
        for _, videos in sorted(strata.items()):
            videos.sort(key=lambda video: (-sum(self._queries[video]), hash_text(f"{self._seed}:{video}")))
            assigned = training = 0
            for video in videos:
                size = sum(self._queries[video])
                assigned += size
                # Chosen if that brings the part closer to its fraction of the queries assigned so far.
                target = self._fraction * assigned
                if abs(training + size - target) < abs(training - target):
                    training += size
                    chosen.add(video)
        return frozenset(chosen)


def write_split(
    rows: Iterable[bytes], training_videos: frozenset[int], train: BinaryIO, held_out: BinaryIO
) -> dict[str, dict[str, Any]]:
    """Write each row of riq.jsonl to its part; return the counts of each part."""
    counts = {name: {"videos": 0, "queries": 0, "answerable": 0, "refusable": 0} for name in SPLIT_FILES}
    videos: set[int] = set()
    decoder = msgspec.json.Decoder(Sample)
    for row in rows:
        sample = decoder.decode(row)
        video = video_key(sample.video)
        name, part = ("train", train) if video in training_videos else ("eval", held_out)
        part.write(row)
        counts[name]["queries"] += 1
        counts[name][sample.task_type] += 1
        counts[name]["videos"] += video not in videos
        videos.add(video)
    return counts
