"""Which refusable query of an item is asked in which epoch: the easy first, then also medium, then all (D8).

The choice is a pure function of seed, epoch and query, so it is the same on every rank and after a resume.
"""

import random
from collections import defaultdict
from collections.abc import Callable, Sequence

from rarft.riq.schema import Sample

_LEVELS = {"easy": 0, "medium": 1, "hard": 2}
_HARDEST = max(_LEVELS.values())

# How alike two texts are, in [-1, 1], for each pair.
Similarities = Callable[[list[tuple[str, list[str]]]], list[list[float]]]


def _item(sample: Sample) -> tuple[str, int]:
    return sample.source.file, sample.source.item


def _levels(pool: list[Sample], similarities: Similarities) -> list[int]:
    """0, 1 or 2 for each query of one item: its label, or where one has none, its rank among the item's queries.

    The less a query resembles the true one, the easier it is told to be wrong.
    """
    if all(sample.difficulty in _LEVELS for sample in pool):
        return [_LEVELS[str(sample.difficulty)] for sample in pool]
    found = similarities([(sample.query, sample.reference_queries[:1]) for sample in pool])
    alike = [cosines[0] if cosines else 0.0 for cosines in found]
    order = sorted(range(len(pool)), key=lambda index: (alike[index], pool[index].id))
    levels = [0] * len(pool)
    for rank, index in enumerate(order):
        levels[index] = len(_LEVELS) * rank // len(pool)
    return levels


class Curriculum:
    """Picks, for a refusable query, the query of the same item that an epoch asks in its place."""

    def __init__(self, samples: Sequence[Sample], seed: int, similarities: Similarities) -> None:
        """
        Args:
            samples: all of the training data.
            seed: of the choice.
            similarities: asked only about items of which a query has no difficulty label.
        """
        self._seed = seed
        pools: dict[tuple[str, int], list[Sample]] = defaultdict(list)
        for sample in samples:
            if sample.task_type == "refusable":
                pools[_item(sample)].append(sample)
        self._pools = {item: list(zip(_levels(pool, similarities), pool, strict=True)) for item, pool in pools.items()}

    def pick(self, sample: Sample, epoch: int) -> Sample:
        """The query to ask; answerable ones, and all of them from the third epoch on, are asked as they are.

        An item without a query that is easy enough gives its easiest.
        """
        if sample.task_type != "refusable" or epoch >= _HARDEST:
            return sample
        pool = self._pools[_item(sample)]
        highest = max(epoch, min(level for level, _ in pool))
        allowed = [other for level, other in pool if level <= highest]
        return random.Random(f"{self._seed} {epoch} {sample.id}").choice(allowed)
