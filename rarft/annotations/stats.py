"""Statistics of the kept queries, collected row by row for the report's plots."""

from collections import Counter
from typing import Any

from rarft.annotations.schema import DIFFICULTY_ORDER, UNLABELED, Sample

_BINS = 60
_HISTOGRAMS = ("duration", "segment_length", "segment_center")


class Histogram:
    """Counts in equal bins from 0 to `top`. Larger values are counted in the last bin."""

    def __init__(self, top: float) -> None:
        self.top = top
        self.counts = [0] * _BINS

    def add(self, value: float) -> None:
        """Count one non-negative value."""
        self.counts[min(_BINS - 1, int(value / self.top * _BINS))] += 1


class Statistics:
    """Task types, difficulties, categories, durations, and lengths and centers of segments."""

    def __init__(self) -> None:
        self.task_types: Counter[str] = Counter()
        self.difficulties: Counter[str] = Counter()
        self.categories: Counter[str] = Counter()
        self.duration = Histogram(180.0)
        self.segment_length = Histogram(60.0)
        self.segment_center = Histogram(1.0)

    def add(self, sample: Sample) -> None:
        """Add one query."""
        self.task_types[sample.task_type] += 1
        self.difficulties[sample.difficulty or UNLABELED] += 1
        self.categories.update(sample.categories)
        if sample.duration is not None:
            self.duration.add(sample.duration)
        for start, end in sample.segments:
            self.segment_length.add(end - start)
            if sample.duration:
                self.segment_center.add(min(1.0, (start + end) / 2 / sample.duration))

    def merge(self, other: "Statistics") -> None:
        """Add the statistics of other queries."""
        self.task_types.update(other.task_types)
        self.difficulties.update(other.difficulties)
        self.categories.update(other.categories)
        for name in _HISTOGRAMS:
            ours, theirs = getattr(self, name).counts, getattr(other, name).counts
            ours[:] = [a + b for a, b in zip(ours, theirs, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """Return the statistics for report.json; a histogram as the end of its range and its counts."""
        histograms = {name: getattr(self, name) for name in _HISTOGRAMS}
        return {
            "task_types": dict(self.task_types),
            "difficulties": {name: self.difficulties[name] for name in DIFFICULTY_ORDER if name in self.difficulties},
            "categories": dict(self.categories.most_common()),
            **{name: {"top": value.top, "counts": value.counts} for name, value in histograms.items()},
        }
