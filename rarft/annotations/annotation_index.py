"""The first pass over a file: a compact index of what the checks of one query need to know about the others.

Texts are stored in a temporary file. Memory holds 64-bit hashes and offsets, at most 60 bytes per query. Texts with
the same hash count as equal: for a million texts, the chance of any collision is about 1 in 40 million.
"""

import mmap
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

from rarft.annotations.crop_times import CropEvidence
from rarft.annotations.parsing import base_name, item_queries, normalize_text


def hash64(text: str) -> int:
    """Return a 64-bit hash of a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def video_hashes(items: Iterable[Any]) -> frozenset[int]:
    """Return the hashes of the base names of all items' videos."""
    return frozenset(
        hash64(base_name(item["video"]))
        for item in items
        if isinstance(item, dict) and isinstance(item.get("video"), str)
    )


def _hash(value: Hashable) -> int:
    """Return a 64-bit hash that is valid in this process only. It is several times faster than `hash64`."""
    return hash(value) & 0xFFFF_FFFF_FFFF_FFFF


def _in_both(first: "array[int]", second: "array[int]") -> frozenset[int]:
    return frozenset(np.intersect1d(np.frombuffer(first, np.uint64), np.frombuffer(second, np.uint64)).tolist())


def _repeated(hashes: "array[int]") -> frozenset[int]:
    values, counts = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
    return frozenset(values[counts > 1].tolist())


class AnnotationIndex:
    """Index of what the checks of a query need to know about a file. Call `build` before a look-up."""

    def __init__(self, resolve_video: Callable[[str], str] | None = None) -> None:
        """Create an empty index; `resolve_video` maps a video's name to its file, so that two names are one video."""
        self._resolve = lru_cache(maxsize=4096)(resolve_video) if resolve_video else lambda video: video
        self.items = 0
        self.crops = CropEvidence()
        self.queries_per_video: dict[str, int] = {}  # number of videos by their number of queries
        self._texts = tempfile.TemporaryFile()  # noqa: SIM115  # open until the index is built
        self._text_end = 0
        # Per answerable query: its video, and where its text starts and ends.
        self._videos, self._starts, self._ends = array("Q"), array("Q"), array("Q")
        self._all_videos = array("Q")  # per query
        # Hashes of (video, query) by task type.
        self._exact = {True: array("Q"), False: array("Q")}
        self._normalized = {True: array("Q"), False: array("Q")}
        self._view: mmap.mmap | None = None
        self._contradictions: frozenset[int] = frozenset()
        self._refused_answerable: frozenset[int] = frozenset()
        self._duplicates: frozenset[int] = frozenset()

    def _query_hash(self, video: str, query: str) -> int:
        return _hash((_hash(self._resolve(video)), query))

    def add(self, item: Any) -> None:
        """Add one item."""
        self.items += 1
        self.crops.add(item)
        for video, query, answerable in item_queries(item):
            key = _hash(self._resolve(video))
            self._all_videos.append(key)
            self._exact[answerable].append(_hash((key, query)))
            self._normalized[answerable].append(_hash((key, normalize_text(query))))
            if answerable and query:
                try:
                    text = query.encode()
                except UnicodeEncodeError:  # the item will be quarantined
                    continue
                self._texts.write(text)
                self._videos.append(key)
                self._starts.append(self._text_end)
                self._text_end += len(text)
                self._ends.append(self._text_end)

    def build(self) -> None:
        """Sort the index for look-ups."""
        if self._text_end:
            self._texts.flush()
            self._view = mmap.mmap(self._texts.fileno(), 0, access=mmap.ACCESS_READ)
        self._texts.close()
        order = np.argsort(np.frombuffer(self._videos, np.uint64), kind="stable")
        for name in ("_videos", "_starts", "_ends"):
            setattr(self, name, array("Q", np.frombuffer(getattr(self, name), np.uint64)[order].tobytes()))
        _, counts = np.unique(np.frombuffer(self._all_videos, np.uint64), return_counts=True)
        sizes, videos = np.unique(counts, return_counts=True)
        self.queries_per_video = {str(size): int(number) for size, number in zip(sizes, videos, strict=True)}
        self._all_videos = array("Q")
        self._contradictions = _in_both(self._exact[True], self._exact[False])
        self._refused_answerable = _in_both(self._normalized[True], self._normalized[False])
        self._duplicates = frozenset[int]().union(*map(_repeated, self._exact.values()))
        self._exact.clear()
        self._normalized.clear()

    def references(self, video: str) -> list[str]:
        """Return the distinct answerable queries of a video in the file's order."""
        key = _hash(self._resolve(video))
        index = bisect_left(self._videos, key)
        texts: dict[str, None] = {}
        while index < len(self._videos) and self._videos[index] == key and self._view is not None:
            text = self._view[self._starts[index] : self._ends[index]]
            texts.setdefault(text.decode())
            index += 1
        return list(texts)

    def is_contradiction(self, video: str, query: str) -> bool:
        """Check whether the same query of the video is marked both answerable and refusable."""
        return bool(self._contradictions) and self._query_hash(video, query) in self._contradictions

    def refuses_answerable_query(self, video: str, query: str) -> bool:
        """Check whether the query is marked both ways, except for case and punctuation."""
        marked = self._refused_answerable
        return bool(marked) and self._query_hash(video, normalize_text(query)) in marked

    def may_be_duplicate(self, item: Any) -> bool:
        """Check whether a query of the item occurs more than once for its video and task type."""
        return bool(self._duplicates) and any(
            self._query_hash(video, query) in self._duplicates for video, query, _ in item_queries(item)
        )
