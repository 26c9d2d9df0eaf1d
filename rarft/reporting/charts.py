"""Charts as Vega-Lite specifications, which `templates/charts.js` draws. Each function returns the HTML of one chart.

A specification contains data, axes with units, and tooltips. Colors, fonts and sizes are in charts.js.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

Points = Sequence[tuple[float, float]]  # (x, y)
Interval = Sequence[float]  # [low, high]
Spec = dict[str, Any]
_MAX_POINTS = 1000  # per line; longer lines are averaged
_MAX_MARKED = 30  # points of a line that are drawn as dots, too
_BAR = 22  # height in pixels of a bar with the space around it


def draw(spec: Spec, rows: Sequence[Mapping[str, Any]], smooth: bool = False) -> Markup:
    """Return the HTML of a chart of rows; with `smooth`, a control of the page sets the field `smooth` of each row."""
    content = htmlsafe_json_dumps({**spec, "data": {"name": "rows", "values": rows}})
    name = "chart smooth" if smooth else "chart"
    return Markup('<div class="{}"><script type="application/json">{}</script></div>').format(name, content)


def _axis(field: str, title: str | None, kind: str = "quantitative", **options: Any) -> Spec:
    return {"field": field, "type": kind, "title": title, **options}


def _tooltip(**fields: str) -> list[Spec]:
    """Return tooltip lines: field -> title."""
    return [{"field": field, "title": title} for field, title in fields.items()]


def bars(counts: Mapping[str, int], unit: str = "queries", links: Mapping[str, str] | None = None) -> Markup:
    """Draw horizontal bars of counts of `unit`. `links` are addresses to open on a click, by name."""
    rows = [{"name": name, "count": count} for name, count in counts.items()]
    for row in rows if links else ():
        row["href"] = (links or {})[str(row["name"])]
    y = _axis("name", None, "nominal", sort=None)
    longest = max(counts.values(), default=0) or 1
    space = 0.04 * len(f"{longest:,}")  # for the label of the longest bar, even on a phone
    x = _axis(
        "count",
        unit,
        axis={"tickMinStep": 1, "format": ",d", "tickCount": 5},
        scale={"domainMax": longest * (1 + space), "nice": False},
    )
    text = {"field": "count", "type": "quantitative", "format": ","}
    spec: Spec = {
        "height": {"step": _BAR},
        "encoding": {"y": y, "x": x, "tooltip": _tooltip(name="", count=unit)},
        "layer": [
            {"mark": "bar", "encoding": {"href": {"field": "href"}} if links else {}},
            {"mark": {"type": "text", "align": "left", "dx": 4}, "encoding": {"text": text}},
        ],
    }
    return draw(spec, rows)


def rates(values: Mapping[tuple[str, str], tuple[float, Interval | None]], title: str) -> Markup:
    """Draw fractions by (group, series) as horizontal bars, each with its 95 % interval as a line."""
    rows: list[dict[str, Any]] = []
    for (group, name), (value, interval) in values.items():
        low, high = interval or (None, None)
        label = f"{low:.3f} to {high:.3f}" if interval else None
        rows.append({"group": group, "series": name, "value": value, "low": low, "high": high, "range": label})
    series = list(dict.fromkeys(series for _, series in values))
    x: Spec = {
        "type": "quantitative",
        "title": title,
        "scale": {"domain": [0, 1]},
        "axis": {"format": ".0%", "tickCount": 5},
    }
    tooltip = [
        *_tooltip(group="", series=""),
        {"field": "value", "title": title, "format": ".3f"},
        {"field": "range", "title": "95 % interval"},
    ]
    encoding: Spec = {"y": _axis("group", None, "nominal", sort=None), "tooltip": tooltip}
    if len(series) > 1:
        encoding["yOffset"] = _axis("series", None, "nominal", sort=None)
        color = _axis("series", None, "nominal", sort=None, scale={"domain": series})
    else:
        color = {"value": {"expr": "accent"}}
    low_to_high = {"x": {"field": "low", **x}, "x2": {"field": "high"}}
    spec: Spec = {
        "height": {"step": 14, "for": "offset"} if len(series) > 1 else {"step": _BAR},
        "encoding": encoding,
        "layer": [
            {"mark": "bar", "encoding": {"x": {"field": "value", **x}, "color": color}},
            {"mark": {"type": "rule", "strokeWidth": 2}, "encoding": low_to_high},
        ],
    }
    return draw(spec, rows)


def histogram(
    counts: Sequence[int],
    top: float,
    unit: str,
    open_ended: bool = True,
    low: float = 0.0,
    title: str = "",
    counted: str = "queries",
) -> Markup:
    """Draw a histogram of equal bins from `low` to `top`; `unit` has a leading space.

    If it is open-ended, the last bin also counts larger values, and empty bins at the end are cut off.

    Args:
        counts: Number of values per bin.
        top: End of the last bin.
        unit: Unit of the values.
        open_ended: Whether the last bin also counts larger values.
        low: Start of the first bin.
        title: Name of the values, for the axis.
        counted: Name of the things that are counted.
    """
    width = (top - low) / len(counts)
    kept = max((index + 1 for index, count in enumerate(counts) if count), default=1) if open_ended else len(counts)
    rows = []
    for index, count in enumerate(counts[:kept]):
        start, end = low + index * width, low + (index + 1) * width
        is_open = open_ended and index + 1 == len(counts)
        label = f"{start:g}{unit} and more" if is_open else f"{start:g} to {end:g}{unit}"
        rows.append({"start": start, "end": end, "count": count, "label": label})
    x_title = f"{title},{unit}" if title and unit else title or unit.strip()
    encoding = {
        "x": _axis("start", x_title, bin="binned", axis={"tickCount": 6}),
        "x2": {"field": "end"},
        "y": _axis("count", counted, axis={"tickMinStep": 1, "format": ",d", "tickCount": 4}),
        "tooltip": _tooltip(label=title, count=counted),
    }
    return draw({"height": 150, "mark": {"type": "bar", "binSpacing": 1}, "encoding": encoding}, rows)


def _downsample(points: Points) -> list[tuple[float, float]]:
    size = -(-len(points) // _MAX_POINTS)
    chunks = [points[start : start + size] for start in range(0, len(points), size)]
    return [(sum(x for x, _ in chunk) / len(chunk), sum(y for _, y in chunk) / len(chunk)) for chunk in chunks]


def curves(series: Mapping[str, Points], y_title: str = "", x_title: str = "step", smooth: bool = False) -> Markup:
    """Draw lines over a common axis. Points are in ascending order of x.

    With `smooth`, a control of the page smooths the lines, and the points as they are stay in the background.
    """
    lines = {name: _downsample(points) for name, points in series.items()}
    rows = [
        {"series": name, "x": float(f"{x:.6g}"), "y": float(f"{y:.6g}")}
        for name, points in lines.items()
        for x, y in points
    ]
    picked = {"condition": {"param": "picked", "value": 1}, "value": 0.12}
    tooltip = [*_tooltip(series="", x=x_title), {"field": "y", "title": y_title or "value", "format": ".4~g"}]
    y = _axis("y", y_title, scale={"zero": False}, axis={"tickCount": 5, "format": ".4~g"})
    nearest = {"type": "point", "on": "pointerover", "nearest": True, "clear": "pointerout"}
    is_short = max(map(len, lines.values())) <= _MAX_MARKED
    raw: Spec = {"mark": {"type": "line", "point": is_short and not smooth}, "encoding": {"y": y, "opacity": picked}}
    layers = [raw]
    if smooth:
        raw["encoding"]["opacity"] = {**picked, "condition": {"param": "picked", "value": 0.3}}
        layers.append(
            {
                "mark": {"type": "line", "point": is_short},
                "encoding": {"y": {**y, "field": "smooth"}, "opacity": picked},
            }
        )
    hover = {
        "mark": {"type": "point", "filled": True, "size": 60, "tooltip": True},
        "params": [{"name": "hovered", "select": nearest}],
        "encoding": {
            "y": y,
            "opacity": {"condition": {"param": "hovered", "value": 1, "empty": False}, "value": 0},
            "tooltip": tooltip,
        },
    }
    encoding: Spec = {
        "x": _axis("x", x_title, axis={"tickCount": 6, "format": "~s"}, scale={"nice": False}),
        "color": _axis("series", None, "nominal", sort=None, scale={"domain": list(lines)}),
    }
    if len(lines) == 1:
        encoding["color"]["legend"] = None
    layers[0]["params"] = [
        {"name": "picked", "select": {"type": "point", "fields": ["series"]}, "bind": "legend"},
    ]
    return draw({"height": 180, "encoding": encoding, "layer": [*layers, hover]}, rows, smooth)


def scatter(points: Mapping[tuple[str, str], tuple[float, float]], x_title: str, y_title: str) -> Markup:
    """Draw points (x, y) in the unit square by (kind, series): the shape shows the kind, the color the series."""
    rows = [{"kind": kind, "series": series, "x": x, "y": y} for (kind, series), (x, y) in points.items()]
    unit: Spec = {"domain": [0, 1]}
    tooltip = [
        *_tooltip(kind="", series=""),
        *({"field": field, "title": title, "format": ".3f"} for field, title in (("x", x_title), ("y", y_title))),
    ]
    spec = {
        "height": 220,
        "mark": {"type": "point", "filled": True, "size": 120, "opacity": 0.9},
        "encoding": {
            "x": _axis("x", x_title, scale=unit),
            "y": _axis("y", y_title, scale=unit),
            "color": _axis("series", None, "nominal", sort=None),
            "shape": _axis("kind", None, "nominal", sort=None),
            "tooltip": tooltip,
        },
    }
    return draw(spec, rows)


def reliability(series: Mapping[str, Points], x_title: str, y_title: str) -> Markup:
    """Draw lines (x, y) in the unit square by series, with the diagonal of a calibrated score."""
    rows = [{"series": name, "x": x, "y": y} for name, points in series.items() for x, y in points]
    unit: Spec = {"domain": [0, 1]}
    tooltip = [
        *_tooltip(series=""),
        *({"field": field, "title": title, "format": ".3f"} for field, title in (("x", x_title), ("y", y_title))),
    ]
    color = _axis("series", None, "nominal", sort=None, scale={"domain": list(series)})
    diagonal = {"values": [{"x": 0, "y": 0}, {"x": 1, "y": 1}]}
    x, y = _axis("x", x_title, scale=unit), _axis("y", y_title, scale=unit)
    spec: Spec = {
        "height": 220,
        "layer": [
            {
                "data": diagonal,
                "mark": {"type": "line", "strokeDash": [4, 4], "opacity": 0.5},
                "encoding": {"x": x, "y": y},
            },
            {
                "mark": {"type": "line", "point": {"size": 50}},
                "encoding": {
                    "x": x,
                    "y": y,
                    "color": color if len(series) > 1 else {"value": {"expr": "accent"}},
                    "tooltip": tooltip,
                },
            },
        ],
    }
    return draw(spec, rows)
