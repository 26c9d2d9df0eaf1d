"""Refusable queries from other videos, drawn by their similarity to the texts about a video.

A query is used only if it names something, or an action, that no text about the video names, in any form or by a
synonym. Words that need no caption do not count: a door or a hand may be in any video. The query must also be less
similar to all texts than the duplicate bound. Queries are drawn in equal parts with low, middling and high similarity,
and each about as often as any other.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from rarft.annotations.parsing import normalize_text
from rarft.annotations.schema import Difficulty
from rarft.negatives.corpus import Corpus, Item
from rarft.negatives.english import words_of
from rarft.negatives.lexicon import Lexicon
from rarft.negatives.negative import Negative
from rarft.negatives.similarity import HARD, MEDIUM, TextVectors, difficulty_of

_POOL = 1024  # queries that a block of videos chooses from
_BLOCK = 128  # videos
_TRIED = 64  # queries per band; the least used ones come first
_MAX_EXAMPLES = 30
_BANDS: dict[Difficulty, tuple[float, float]] = {
    "hard": (HARD, np.inf), "medium": (MEDIUM, HARD), "easy": (-np.inf, MEDIUM)
}  # fmt: skip
# Bands in the order in which they are tried, by the band that is drawn.
_ORDER: dict[Difficulty, tuple[Difficulty, ...]] = {
    "hard": ("hard", "medium", "easy"),
    "medium": ("medium", "easy", "hard"),
    "easy": ("easy", "medium", "hard"),
}
_DRAWN: tuple[Difficulty, ...] = ("hard", "medium", "easy")


@dataclass(slots=True)
class Duplicates:
    """Queries that were dropped because they may mean a moment of the video.

    Attributes:
        count: Number of pairs of a request and a dropped query.
        examples: Dropped query, nearest text about the video, similarity.
    """

    count: int = 0
    examples: list[tuple[str, str, float]] = field(default_factory=list)


def unnamed_words(query: str, lexicon: Lexicon, video_words: frozenset[str]) -> list[str]:
    """Return the words of a query, as it spells them, that no text about the video names, though one would."""
    unnamed = lexicon.unnamed(lexicon.text_words(query), video_words)
    return [word for word in dict.fromkeys(words_of(query)) if unnamed & lexicon.text_words(word)]


def _reason(source: str, unnamed: Sequence[str]) -> str:
    words = " or ".join(f'"{word}"' for word in unnamed[:3])
    return f'No moment matches the query: the video shows "{source.rstrip(" .")}", and nothing with {words}.'


class Shuffler:
    """Draws queries of other videos.

    Attributes:
        duplicates: Queries at or above the duplicate bound.
    """

    def __init__(self, corpus: Corpus, vectors: TextVectors, lexicon: Lexicon, seed: int, duplicate: float) -> None:
        """
        Args:
            corpus: Videos and items.
            vectors: Embeddings of all texts of the corpus.
            lexicon: Synonyms and word forms.
            seed: Random seed.
            duplicate: Similarity from which on a query may mean a moment of the video.
        """
        self._corpus, self._vectors, self._lexicon, self._duplicate = corpus, vectors, lexicon, duplicate
        self._rng = np.random.default_rng(seed)
        videos: dict[str, set[int]] = {}
        for item in corpus.answerable_items():
            for query in item.queries:
                videos.setdefault(query, set()).add(item.video)
        self._queries = list(videos)
        self._normalized = list(map(normalize_text, self._queries))
        self._order = self._rng.permutation(len(videos))
        self._uses = np.zeros(len(videos), np.int64)
        self._drawn = 0
        self.duplicates = Duplicates()

    def make(self, requests: Mapping[int, int]) -> Iterator[tuple[int, Negative]]:
        """Yield (index of the item, query) for a number of queries per item; fewer if there are not enough."""
        items = self._corpus.answerable_items()
        by_video: dict[int, list[int]] = {}
        for index, number in requests.items():
            if number:
                by_video.setdefault(items[index].video, []).append(index)
        videos = list(by_video)
        for start in range(0, len(videos), _BLOCK):
            block = videos[start : start + _BLOCK]
            pool = np.take(self._order, np.arange(start // _BLOCK * _POOL, (start // _BLOCK + 1) * _POOL), mode="wrap")
            pool = np.array(list(dict.fromkeys(pool.tolist())), np.int64)
            for video, similarities in zip(block, self._similarities(block, pool), strict=True):
                for index in by_video[video]:
                    for negative in self._draw(items[index], pool, similarities, requests[index]):
                        yield index, negative

    def _similarities(self, videos: Sequence[int], pool: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the similarity of each query of the pool to the nearest text of each video, shape (V, P)."""
        texts = [list(self._corpus.videos[video].texts) for video in videos]
        starts = np.cumsum([0, *(len(each) for each in texts[:-1])])
        pool_PD = self._vectors.get([self._queries[query] for query in pool])
        all_TP = self._vectors.get([text for each in texts for text in each]) @ pool_PD.T
        return np.maximum.reduceat(all_TP, starts, axis=0)

    def _draw(
        self, item: Item, pool: NDArray[np.int64], similarities_P: NDArray[np.float32], number: int
    ) -> Iterator[Negative]:
        video = self._corpus.videos[item.video]
        video_words = video.words(self._lexicon)
        too_similar = np.flatnonzero(similarities_P >= self._duplicate)
        self._count_duplicates(item, pool[too_similar], similarities_P[too_similar])
        for _ in range(number):
            drawn = _DRAWN[self._drawn % len(_DRAWN)]
            self._drawn += 1
            for band in _ORDER[drawn]:
                low, high = _BANDS[band]
                is_in_band = (similarities_P >= low) & (similarities_P < min(high, self._duplicate))
                position = self._choose(np.flatnonzero(is_in_band), pool, video.taken, video_words)
                if position is not None:
                    break
            else:
                return
            query = self._queries[pool[position]]
            self._uses[pool[position]] += 1
            video.taken.add(self._normalized[pool[position]])
            unnamed = unnamed_words(query, self._lexicon, video_words)
            similarity = round(float(similarities_P[position]), 4)
            yield Negative(
                kind="shuffled",
                query=query,
                source=item.queries[0],
                difficulty=difficulty_of(similarity),
                categories=self._lexicon.categories(unnamed),
                reason=_reason(item.queries[0], unnamed),
                detail={"similarity": similarity},
            )

    def _choose(
        self, candidates: NDArray[np.int64], pool: NDArray[np.int64], taken: set[str], video_words: frozenset[str]
    ) -> int | None:
        """Return the position in the pool of the least used query that the video does not show; None without one."""
        if len(candidates) > _TRIED:
            first = int(self._rng.integers(len(candidates)))
            candidates = np.take(candidates, np.arange(first, first + _TRIED), mode="wrap")
        for position in candidates[np.argsort(self._uses[pool[candidates]], kind="stable")]:
            query = int(pool[position])
            words = self._lexicon.text_words(self._queries[query])
            if self._lexicon.unnamed(words, video_words) and self._normalized[query] not in taken:
                return int(position)
        return None

    def _count_duplicates(self, item: Item, queries: NDArray[np.int64], similarities: NDArray[np.float32]) -> None:
        """Count queries that are similar to a text about the video, except for those that are one of its texts."""
        video = self._corpus.videos[item.video]
        for query, similarity in zip(queries.tolist(), similarities.tolist(), strict=True):
            if self._normalized[query] in video.taken:
                continue
            self.duplicates.count += 1
            if len(self.duplicates.examples) < _MAX_EXAMPLES:
                text = self._queries[query]
                texts = list(video.texts)
                nearest = texts[int(np.argmax(self._vectors.get(texts) @ self._vectors.get([text])[0]))]
                example = (text, nearest, round(similarity, 3))
                if example not in self.duplicates.examples:
                    self.duplicates.examples.append(example)
