"""The first pass over a file: what a query's check must know of the rest of it, in few bytes a query.

Texts go to a temporary file; in memory stay 64-bit hashes and offsets, at most 60 bytes a query. Two texts
of one hash are taken for one: among a million of them, by a chance of one in forty million.
"""

import mmap
import re
import tempfile
from array import array
from bisect import bisect_left
from collections.abc import Callable, Hashable, Iterable
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np

_PUNCTUATION = re.compile(r"[^\w\s]+")


def base_name(video: str) -> str:
    """The last part of a path of any system or URI."""
    return video.replace("\\", "/").rsplit("/", 1)[-1]


def hash64(text: str) -> int:
    """64 bits of a text, the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _hash(value: Hashable) -> int:
    """64 bits of a value, for as long as this process lives: several times cheaper than `hash64`."""
    return hash(value) & 0xFFFF_FFFF_FFFF_FFFF


def normalize_text(text: str) -> str:
    """A text without case, punctuation and doubled white space."""
    return " ".join(_PUNCTUATION.sub(" ", text.casefold()).split())


def read_boolean(value: Any) -> bool | None:
    """A truth value, also where it is written as a number or a word; None for anything else."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int | str):
        return {"1": True, "true": True, "0": False, "false": False}.get(str(value).strip().lower())
    return None


def item_queries(item: Any) -> Iterable[tuple[str, str, bool]]:
    """(video, query, answerable) of every readable query of an item, or of a row that validation wrote."""
    if not isinstance(item, dict) or not isinstance(video := item.get("video"), str):
        return
    if "task_type" in item and isinstance(item.get("query"), str):
        yield video, item["query"], item["task_type"] == "answerable"
    queries = item.get("GRPO")
    for query in queries if isinstance(queries, list) else []:
        if isinstance(query, dict) and isinstance(text := query.get("q"), str):
            kind = read_boolean(query.get("r"))
            if kind is not None:
                yield video, text.strip(), kind


def _in_both(first: array, second: array) -> frozenset[int]:
    return frozenset(np.intersect1d(np.frombuffer(first, np.uint64), np.frombuffer(second, np.uint64)).tolist())


def _more_than_once(hashes: array) -> frozenset[int]:
    values, counts = np.unique(np.frombuffer(hashes, np.uint64), return_counts=True)
    return frozenset(values[counts > 1].tolist())


class AnnotationIndex:
    """Reference queries, contradictions, and how many queries each video has.

    Attributes:
        items: items seen.
        queries_per_video: number of queries -> number of videos with so many; filled by `finish`.
    """

    def __init__(self, identity: Callable[[str], str] | None = None) -> None:
        """
        Args:
            identity: the file that a name of a video means, so that two names of one file are one video.
        """
        self._identity = lru_cache(maxsize=4096)(identity) if identity else lambda video: video
        self.items = 0
        self.queries_per_video: dict[str, int] = {}
        self._texts = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the survey
        self._end = 0
        self._videos = array("Q")  # of each answerable query: its video, where its text begins and ends
        self._begins = array("Q")
        self._ends = array("Q")
        self._all_videos = array("Q")  # of each query
        self._exact = {True: array("Q"), False: array("Q")}  # (video, query) by answerable or not
        self._folded = {True: array("Q"), False: array("Q")}
        self._view: mmap.mmap | None = None
        self._contradictions: frozenset[int] = frozenset()
        self._refused_truths: frozenset[int] = frozenset()
        self._repeated: frozenset[int] = frozenset()

    def add(self, item: Any) -> None:
        """Take note of one item."""
        self.items += 1
        for video, query, answerable in item_queries(item):
            key = _hash(self._identity(video))
            self._all_videos.append(key)
            self._exact[answerable].append(_hash((key, query)))
            self._folded[answerable].append(_hash((key, normalize_text(query))))
            if answerable and query:
                try:
                    data = query.encode()
                except UnicodeEncodeError:  # its item will be quarantined
                    continue
                self._texts.write(data)
                self._videos.append(key)
                self._begins.append(self._end)
                self._end += len(data)
                self._ends.append(self._end)

    def finish(self) -> None:
        """Sort what was noted; from here on it can be asked."""
        if self._end:
            self._texts.flush()
            self._view = mmap.mmap(self._texts.fileno(), 0, access=mmap.ACCESS_READ)
        order = np.argsort(np.frombuffer(self._videos, np.uint64), kind="stable")
        for name in ("_videos", "_begins", "_ends"):
            setattr(self, name, array("Q", np.frombuffer(getattr(self, name), np.uint64)[order].tobytes()))
        _, counts = np.unique(np.frombuffer(self._all_videos, np.uint64), return_counts=True)
        sizes, videos = np.unique(counts, return_counts=True)
        self.queries_per_video = {str(size): int(number) for size, number in zip(sizes, videos, strict=True)}
        self._all_videos = array("Q")
        self._contradictions = _in_both(self._exact[True], self._exact[False])
        self._refused_truths = _in_both(self._folded[True], self._folded[False])
        self._repeated = frozenset[int]().union(*(_more_than_once(hashes) for hashes in self._exact.values()))
        self._exact.clear()
        self._folded.clear()

    def references(self, video: str) -> list[str]:
        """Answerable queries of the video, as items name it, in the file's order; a text that recurs once."""
        key = _hash(self._identity(video))
        index = bisect_left(self._videos, key)
        found: dict[str, None] = {}
        while index < len(self._videos) and self._videos[index] == key and self._view is not None:
            data = self._view[self._begins[index] : self._ends[index]]
            found.setdefault(data.decode())
            index += 1
        return list(found)

    def is_contradiction(self, video: str, query: str) -> bool:
        """Whether the file marks the same query of the video both answerable and refusable."""
        return bool(self._contradictions) and _hash((_hash(self._identity(video)), query)) in self._contradictions

    def refuses_answerable_query(self, video: str, query: str) -> bool:
        """Whether, but for case and punctuation, the query is marked both ways."""
        if not self._refused_truths:
            return False
        return _hash((_hash(self._identity(video)), normalize_text(query))) in self._refused_truths

    def may_be_duplicate(self, item: Any) -> bool:
        """Whether a query of the item stands elsewhere in the file too, for the same video and marked alike."""
        if not self._repeated:
            return False
        return any(
            _hash((_hash(self._identity(video)), query)) in self._repeated for video, query, _ in item_queries(item)
        )


def videos_of(items: Iterable[Any]) -> frozenset[int]:
    """Hashes of the base names of every item's video: what another file must not share."""
    return frozenset(
        hash64(base_name(item["video"]))
        for item in items
        if isinstance(item, dict) and isinstance(item.get("video"), str)
    )
