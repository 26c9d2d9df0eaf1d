"""Curriculum over the refusable queries of an item: the easy ones first, then also medium ones, then all (D8).

The curriculum only filters. `rarft.training.data.draw` draws from the queries that it admits.
"""

from collections.abc import Callable, Iterable

from rarft.annotations.schema import Sample, Source

_LEVELS = {"easy": 0, "medium": 1, "hard": 2}

# Returns the cosine similarities, in [-1, 1], of each text to the texts that it is paired with.
Similarities = Callable[[list[tuple[str, list[str]]]], list[list[float]]]


def _difficulty_levels(pool: list[Sample], similarities: Similarities) -> list[int]:
    """Return 0, 1 or 2 for each query of one item: its label, or without labels its rank among the item's queries.

    The less a query resembles the true one, the easier it is to refuse.
    """
    if all(sample.difficulty in _LEVELS for sample in pool):
        return [_LEVELS[str(sample.difficulty)] for sample in pool]
    cosines = similarities([(sample.query, sample.reference_queries[:1]) for sample in pool])
    similarity = [values[0] if values else 0.0 for values in cosines]
    order = sorted(range(len(pool)), key=lambda index: (similarity[index], pool[index].id))
    levels = [0] * len(pool)
    for rank, index in enumerate(order):
        levels[index] = len(_LEVELS) * rank // len(pool)
    return levels


class Curriculum:
    """Filters the refusable queries of an item by epoch.

    Args:
        pools: Queries to draw from, one list per row of an epoch.
        similarities: Compares texts. Called only for items with a query that has no difficulty label.
    """

    def __init__(self, pools: Iterable[list[Sample]], similarities: Similarities) -> None:
        self._levels: dict[Source, int] = {}
        for pool in pools:
            if pool[0].task_type == "refusable":
                levels = _difficulty_levels(pool, similarities)
                self._levels |= {sample.source: level for sample, level in zip(pool, levels, strict=True)}

    def admitted(self, pool: list[Sample], epoch: int) -> list[Sample]:
        """Return the queries of a pool that are easy enough for an epoch; the easiest ones if none is.

        Answerable queries are always admitted.
        """
        if pool[0].task_type != "refusable":
            return pool
        levels = [self._levels[sample.source] for sample in pool]
        max_level = max(epoch, min(levels))
        return [sample for sample, level in zip(pool, levels, strict=True) if level <= max_level]
