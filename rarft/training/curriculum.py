"""Which refusable queries of an item an epoch may ask: the easy first, then also medium, then all (D8).

The curriculum only filters; `rarft.training.data.draw` draws from what it admits.
"""

from collections.abc import Callable, Iterable

from rarft.annotations.schema import Sample, Source

_LEVELS = {"easy": 0, "medium": 1, "hard": 2}

# How alike two texts are, in [-1, 1], for each pair.
Similarities = Callable[[list[tuple[str, list[str]]]], list[list[float]]]


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
    """Filters the refusable queries of an item by the epoch in which they are asked."""

    def __init__(self, pools: Iterable[list[Sample]], similarities: Similarities) -> None:
        """
        Args:
            pools: Queries to draw from, one list per row of an epoch.
            similarities: Called only for items with a query that has no difficulty label.
        """
        self._levels: dict[Source, int] = {}
        for pool in pools:
            if pool[0].task_type == "refusable":
                levels = _levels(pool, similarities)
                self._levels |= {sample.source: level for sample, level in zip(pool, levels, strict=True)}

    def admitted(self, pool: list[Sample], epoch: int) -> list[Sample]:
        """Return the queries of a pool that an epoch may ask; the easiest where none is easy enough.

        Answerable queries are always admitted.
        """
        if pool[0].task_type != "refusable":
            return pool
        levels = [self._levels[sample.source] for sample in pool]
        highest = max(epoch, min(levels))
        return [sample for sample, level in zip(pool, levels, strict=True) if level <= highest]
