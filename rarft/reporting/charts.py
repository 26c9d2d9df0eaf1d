"""Charts as HTML and SVG. Each function computes the geometry; macros in `templates/charts.html.j2` draw it."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

from markupsafe import Markup

from rarft.reporting.html import draw

Points = Sequence[tuple[float, float]]  # (x, y)
Interval = Sequence[float]  # [low, high]
_COLORS = ("#2563eb", "#dc2626", "#059669", "#b45309", "#7c3aed", "#0891b2", "#be185d", "#65a30d")
_MAX_POINTS = 400  # per line; longer lines are averaged
_WIDTH = 480


def _bar(name: str, value: float, label: str, interval: Interval | None = None) -> dict[str, Any]:
    line = (f"{100 * interval[0]:.1f}", f"{100 * (interval[1] - interval[0]):.1f}") if interval else None
    return {"name": name, "width": f"{100 * value:.1f}", "interval": line, "label": label}


def bars(counts: Mapping[str, int]) -> Markup:
    """Draw horizontal bars of counts, relative to the largest."""
    largest = max(counts.values(), default=0) or 1
    return draw("bars", rows=[_bar(name, count / largest, f"{count:,}") for name, count in counts.items()])


def rates(values: Mapping[str, tuple[float, Interval | None]]) -> Markup:
    """Draw horizontal bars of fractions, each with its interval as a thin line."""
    rows = [_bar(name, value, f"{value:.3f}", interval) for name, (value, interval) in values.items()]
    return draw("bars", rows=rows)


def histogram(counts: Sequence[int], top: float, unit: str, open_ended: bool = True) -> Markup:
    """Draw a histogram of equal bins from 0 to `top`; `unit` has a leading space.

    If it is open-ended, the last bin also counts larger values, and empty bins at the end are cut off.
    """
    if open_ended:
        filled = max((index + 1 for index, count in enumerate(counts) if count), default=1)
        open_ended = filled == len(counts)
        counts, top = counts[:filled], top * filled / len(counts)
    largest = max(counts, default=0) or 1
    height = 120
    step = _WIDTH / len(counts)
    bins = [
        {
            "x": f"{index * step + 1:.1f}",
            "y": f"{height * (1 - count / largest):.1f}",
            "width": f"{max(step - 2, 1):.1f}",
            "height": f"{height * count / largest:.1f}",
            "title": f"{index * top / len(counts):g} to {(index + 1) * top / len(counts):g}{unit}: {count:,}",
        }
        for index, count in enumerate(counts)
    ]
    last_label = f"{top:g}{unit}{' and more' if open_ended else ''}"
    return draw("histogram", width=_WIDTH, height=height, bins=bins, last_label=last_label)


def _downsample(points: Points) -> list[tuple[float, float]]:
    size = -(-len(points) // _MAX_POINTS)
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in chunk) / len(chunk), sum(y for _, y in chunk) / len(chunk)) for chunk in chunks]


def curves(series: Mapping[str, Points]) -> Markup:
    """Draw lines over a common axis; the legend shows the last value of each. Points are in ascending order of x."""
    lines = {name: _downsample(points) for name, points in series.items()}
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    x_min, x_max, y_min, y_max = min(xs), max(xs), min(ys), max(ys)
    height, margin = 150, 14

    def position(x: float, y: float) -> str:
        across = (x - x_min) / (x_max - x_min) if x_max > x_min else 0.5
        up = (y - y_min) / (y_max - y_min) if y_max > y_min else 0.5
        return f"{across * _WIDTH:.1f},{margin + (1 - up) * (height - 2 * margin):.1f}"

    drawn = [
        {
            "name": name,
            "color": color,
            "points": " ".join(position(x, y) for x, y in points),
            "label": f"{name} {series[name][-1][1]:.4g}",
        }
        for color, (name, points) in zip(cycle(_COLORS), lines.items(), strict=False)
    ]
    limits = {"y_max": f"{y_max:.4g}", "y_min": f"{y_min:.4g}", "x_max": f"{x_max:g}"}
    return draw("curves", width=_WIDTH, height=height, lines=drawn, **limits)


def scatter(points: Mapping[str, tuple[float, float]]) -> Markup:
    """Draw named points (x, y) in the unit square."""
    size, margin = 200, 14
    drawn = [
        {
            "x": f"{margin + x * size:.1f}",
            "y": f"{margin + (1 - y) * size:.1f}",
            "color": color,
            "title": f"{name}: {x:.3f}, {y:.3f}",
            "label": f"{name} ({x:.2f}, {y:.2f})",
        }
        for color, (name, (x, y)) in zip(cycle(_COLORS), points.items(), strict=False)
    ]
    return draw("scatter", size=size, margin=margin, points=drawn)
