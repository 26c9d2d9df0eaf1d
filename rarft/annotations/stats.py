"""What the usable queries look like: the figures behind the report's plots, gathered row by row."""

from collections import Counter
from typing import Any

from rarft.annotations.schema import Sample

_BINS = 60


_HISTOGRAMS = ("duration", "segment_length", "segment_centre")


class Histogram:
    """Counts in equal bins from 0 to `top`; what lies above goes into the last."""

    def __init__(self, top: float) -> None:
        self.top = top
        self.counts = [0] * _BINS

    def add(self, value: float) -> None:
        """Count one value of at least 0."""
        self.counts[min(_BINS - 1, int(value / self.top * _BINS))] += 1


class Statistics:
    """Balance, difficulties, categories, lengths and positions of the queries that were kept."""

    def __init__(self) -> None:
        self.task_types: Counter[str] = Counter()
        self.difficulties: Counter[str] = Counter()
        self.categories: Counter[str] = Counter()
        self.duration = Histogram(180.0)
        self.segment_length = Histogram(60.0)
        self.segment_centre = Histogram(1.0)

    def add(self, sample: Sample) -> None:
        """Take note of one kept query."""
        self.task_types[sample.task_type] += 1
        self.difficulties[sample.difficulty or "unlabelled"] += 1
        self.categories.update(sample.categories)
        if sample.duration is not None:
            self.duration.add(sample.duration)
        if sample.segment is not None:
            start, end = sample.segment
            self.segment_length.add(end - start)
            if sample.duration:
                self.segment_centre.add(min(1.0, (start + end) / 2 / sample.duration))

    def merge(self, other: "Statistics") -> None:
        """Add the figures of other queries."""
        self.task_types.update(other.task_types)
        self.difficulties.update(other.difficulties)
        self.categories.update(other.categories)
        for name in _HISTOGRAMS:
            mine, theirs = getattr(self, name).counts, getattr(other, name).counts
            mine[:] = [a + b for a, b in zip(mine, theirs, strict=True)]

    def as_dict(self) -> dict[str, Any]:
        """The figures for report.json; histograms as the upper end of their range and the counts of equal bins."""
        histograms = {name: getattr(self, name) for name in _HISTOGRAMS}
        return {
            "task_types": dict(self.task_types),
            "difficulties": dict(self.difficulties),
            "categories": dict(self.categories.most_common()),
            **{name: {"top": value.top, "counts": value.counts} for name, value in histograms.items()},
        }
