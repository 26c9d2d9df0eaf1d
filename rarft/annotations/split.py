"""Splitting validated queries into a training part and a held-out part, by video and never by query."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, BinaryIO

from rarft.annotations.file_index import base_name, hash64
from rarft.annotations.schema import Sample

SPLIT_FILES = {"train": "riq.train.jsonl", "eval": "riq.eval.jsonl"}


def video_key(video: str) -> int:
    """What makes two queries be of one video: its base name, so that no other path to it lets it leak."""
    return hash64(base_name(video))


class Splitter:
    """Gathers how many queries of each task type every video has, then deals the videos out."""

    def __init__(self, fraction: float, seed: int) -> None:
        """
        Args:
            fraction: share of the queries that is to be trained on, in (0, 1).
            seed: of the order in which videos are dealt out.
        """
        self._fraction = fraction
        self._seed = seed
        self._queries: dict[int, list[int]] = {}  # video -> [answerable, refusable]

    def add(self, queries: Iterable[tuple[int, bool]]) -> None:
        """Take note of kept queries: of each its video's key, and whether it is refusable."""
        for video, refusable in queries:
            self._queries.setdefault(video, [0, 0])[refusable] += 1

    def _order(self, video: int) -> bytes:
        return hashlib.sha256(f"{self._seed}:{video}".encode()).digest()

    def training_videos(self) -> frozenset[int]:
        """The videos to train on: a pure function of the seed and of what was added, in whatever order.

        Videos with only answerable, only refusable, and both kinds of queries are dealt out apart, and videos
        with many queries before those with few: so both parts have the same balance.
        """
        strata: dict[tuple[bool, bool], list[int]] = defaultdict(list)
        for video, (answerable, refusable) in self._queries.items():
            strata[answerable > 0, refusable > 0].append(video)
        chosen: set[int] = set()
        for _, videos in sorted(strata.items()):
            videos.sort(key=lambda video: (-sum(self._queries[video]), self._order(video)))
            dealt = taken = 0
            for video in videos:
                size = sum(self._queries[video])
                dealt += size
                # Taken wherever that leaves the part closer to its share of what was dealt so far.
                if abs(taken + size - self._fraction * dealt) < abs(taken - self._fraction * dealt):
                    taken += size
                    chosen.add(video)
        return frozenset(chosen)


def split_rows(
    rows: Iterable[tuple[Sample, bytes]], training: frozenset[int], train: BinaryIO, held_out: BinaryIO
) -> dict[str, dict[str, Any]]:
    """Write each row to its part; returns the counts of each."""
    counts = {name: {"videos": 0, "queries": 0, "answerable": 0, "refusable": 0} for name in SPLIT_FILES}
    videos: dict[str, set[int]] = {name: set() for name in SPLIT_FILES}
    for sample, line in rows:
        video = video_key(sample.video)
        name = "train" if video in training else "eval"
        (train if name == "train" else held_out).write(line)
        counts[name]["queries"] += 1
        counts[name][sample.task_type] += 1
        videos[name].add(video)
    for name, found in videos.items():
        counts[name]["videos"] = len(found)
    return counts


def rows_of(file: BinaryIO, decoder: Any) -> Iterator[tuple[Sample, bytes]]:
    """Rows of a riq.jsonl with their bytes."""
    for line in file:
        yield decoder.decode(line), line
