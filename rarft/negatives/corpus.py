"""Compact view of validated data: videos with their texts, and items with their answerable queries.

It holds what negatives are chosen from; the rows themselves are read again when the result is written.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rarft.annotations.parsing import base_name, normalize_text
from rarft.annotations.schema import Sample
from rarft.negatives.lexicon import Lexicon


@dataclass(slots=True)
class Video:
    """Texts about one video.

    Attributes:
        name: Base name of its file.
        texts: Distinct answerable queries and captions, in their order.
        taken: Normalized texts that a new query must differ from: the answerable and the refusable queries.
    """

    name: str
    texts: dict[str, None] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    _words: frozenset[str] | None = field(default=None, init=False, repr=False)

    def words(self, lexicon: Lexicon) -> frozenset[str]:
        """Return the content words of all texts. They are kept, for the one lexicon of a run."""
        if self._words is None:
            self._words = frozenset[str]().union(*map(lexicon.text_words, self.texts))
        return self._words


@dataclass(slots=True)
class Item:
    """An annotated moment.

    Attributes:
        video: Index of its video.
        queries: Its answerable queries.
        rows: Number of its rows.
        next_query: First index of a query that is not used in the item.
    """

    video: int
    queries: list[str] = field(default_factory=list)
    rows: int = 0
    next_query: int = 0


ItemKey = tuple[str, int]


class Corpus:
    """Videos and items of validated data.

    Attributes:
        videos: Videos in the order of the data; two paths with the same base name are one video.
        items: Items in the order of the data, by file and index. Those without an answerable query get no negatives.
    """

    def __init__(self, samples: Iterable[Sample]) -> None:
        self.videos: list[Video] = []
        self.items: dict[ItemKey, Item] = {}
        self._indices: dict[str, int] = {}
        for sample in samples:
            self._add(sample)

    def _add(self, sample: Sample) -> None:
        index = self._indices.setdefault(base_name(sample.video), len(self.videos))
        if index == len(self.videos):
            self.videos.append(Video(base_name(sample.video)))
        video = self.videos[index]
        item = self.items.setdefault((sample.source.file, sample.source.item), Item(index))
        item.rows += 1
        item.next_query = max(item.next_query, sample.source.query + 1)
        video.taken.add(normalize_text(sample.query))
        if sample.task_type == "answerable":
            item.queries.append(sample.query)
            video.texts.setdefault(sample.query)
        for text in (*sample.reference_queries, *(text for _, _, text in sample.captions)):
            if text not in video.texts:
                video.texts[text] = None
                video.taken.add(normalize_text(text))

    def answerable_items(self) -> list[Item]:
        """Return the items that get negatives. All indices of items refer to this list."""
        return [item for item in self.items.values() if item.queries]

    def texts(self) -> Iterator[str]:
        """Yield all texts about all videos."""
        for video in self.videos:
            yield from video.texts
