"""Self-contained HTML pages: no script, no style and no picture from elsewhere."""

from collections.abc import Iterable, Mapping, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --accent: #2563eb; --soft: #8881; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.note { color: #888; margin-top: .2rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { font-weight: 600; } td.number, th.number { text-align: right; white-space: nowrap; }
.cards { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; }
.card { background: var(--soft); border-radius: .5rem; padding: .7rem 1.1rem; min-width: 8rem; }
.card b { display: block; font-size: 1.6rem; } code { font-size: .9em; overflow-wrap: anywhere; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1rem 2rem; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .3rem; }
svg { width: 100%; } svg rect { fill: var(--accent); } svg text { font-size: 11px; fill: #888; }
.bars td { border: 0; padding: .12rem .4rem; } .bars .bar { width: 45%; min-width: 7rem; }
.bar i { display: block; height: .8rem; background: var(--accent); border-radius: 2px; min-width: 1px; }
.rate { position: relative; } .rate u { position: absolute; top: 50%; border-top: 2px solid currentColor; }
svg.square { max-width: 16rem; } svg rect.frame { fill: none; stroke: #8886; }
.error { color: #dc2626; } .warning { color: #b45309; } .info { color: #888; }
details { margin: .3rem 0; } summary { cursor: pointer; }
"""


class Html(str):
    """Text that is HTML already and is not to be escaped again."""

    __slots__ = ()


def cell(value: object) -> str:
    """A value as HTML: three decimals for a float, a dash for nothing."""
    if isinstance(value, Html):
        return value
    if value is None:
        return "–"
    return escape(f"{value:.3f}" if isinstance(value, float) else str(value))


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A table; numbers stand on the right."""

    def row(tag: str, values: Sequence[object], numeric: Sequence[bool]) -> str:
        cells = (
            f"<{tag}{' class=number' if right else ''}>{cell(value)}</{tag}>"
            for value, right in zip(values, numeric, strict=True)
        )
        return f"<tr>{''.join(cells)}</tr>"

    body = [list(values) for values in rows]
    right = [
        bool(body) and all(isinstance(values[column], int | float | None) for values in body)
        for column in range(len(header))
    ]
    return Html(
        f"<table><thead>{row('th', header, right)}</thead>"
        f"<tbody>{''.join(row('td', values, right) for values in body)}</tbody></table>"
    )


def cards(values: dict[str, object]) -> Html:
    """Figures to be seen first: the value large, its name below."""
    return Html(
        "<div class=cards>"
        + "".join(f"<div class=card><b>{cell(value)}</b>{escape(name)}</div>" for name, value in values.items())
        + "</div>"
    )


def bars(counts: dict[str, int]) -> Html:
    """Horizontal bars, each with its name and count, the longest as wide as there is room."""
    largest = max(counts.values(), default=0) or 1
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td class=bar><i style='width:{100 * count / largest:.1f}%'></i></td>"
        f"<td class=number>{count:,}</td></tr>"
        for name, count in counts.items()
    )
    return Html(f"<table class=bars>{rows}</table>")


def histogram(counts: Sequence[int], top: float, unit: str, open_ended: bool = True) -> Html:
    """Vertical bars of equal bins from 0 to `top`; the last also holds what lies above, where it is open-ended.

    Of an open end no more is shown than holds anything.
    """
    if open_ended:
        filled = max((index + 1 for index, count in enumerate(counts) if count), default=1)
        open_ended = filled == len(counts)
        counts, top = counts[:filled], top * filled / len(counts)
    largest = max(counts, default=0) or 1
    width, height = 480, 120
    step = width / len(counts)
    rectangles = "".join(
        f"<rect x='{index * step + 1:.1f}' y='{height * (1 - count / largest):.1f}' width='{max(step - 2, 1):.1f}' "
        f"height='{height * count / largest:.1f}'><title>{index * top / len(counts):g} to "
        f"{(index + 1) * top / len(counts):g}{escape(unit)}: {count:,}</title></rect>"
        for index, count in enumerate(counts)
    )
    last = f"{top:g}{unit}{' and more' if open_ended else ''}"
    return Html(
        f"<svg viewBox='0 0 {width} {height + 18}' role=img>{rectangles}"
        f"<text x='0' y='{height + 14}'>0</text>"
        f"<text x='{width}' y='{height + 14}' text-anchor='end'>{escape(last)}</text></svg>"
    )


_COLOURS = ("#2563eb", "#dc2626", "#059669", "#b45309", "#7c3aed", "#0891b2", "#be185d", "#65a30d")
_POINTS = 400  # of a line; of more, the mean of each stretch is drawn


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    size = -(-len(points) // _POINTS)
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        (sum(x for x, _ in stretch) / len(stretch), sum(y for _, y in stretch) / len(stretch)) for stretch in stretches
    ]


def curves(series: Mapping[str, Sequence[tuple[float, float]]]) -> Html:
    """Lines over a common axis, each with its name and last value; points are (x, y), x ascending."""
    lines = {name: _thinned(points) for name, points in series.items()}
    xs = [x for points in lines.values() for x, _ in points]
    ys = [y for points in lines.values() for _, y in points]
    low, high, left, right = min(ys), max(ys), min(xs), max(xs)
    width, height, margin = 480, 150, 14

    def place(x: float, y: float) -> str:
        across = (x - left) / (right - left) if right > left else 0.5
        up = (y - low) / (high - low) if high > low else 0.5
        return f"{across * width:.1f},{margin + (1 - up) * (height - 2 * margin):.1f}"

    drawn = "".join(
        f"<polyline fill=none stroke-width=1.5 stroke='{_COLOURS[index % len(_COLOURS)]}' "
        f"points='{' '.join(place(x, y) for x, y in points)}'><title>{escape(name)}</title></polyline>"
        for index, (name, points) in enumerate(lines.items())
    )
    legend = " ".join(
        f"<span style='color:{_COLOURS[index % len(_COLOURS)]}'>{escape(name)} {points[-1][1]:.4g}</span>"
        for index, (name, points) in enumerate(series.items())
    )
    return Html(
        f"<svg viewBox='0 0 {width} {height}' role=img>{drawn}<text x=0 y=11>{high:.4g}</text>"
        f"<text x=0 y={height - 2}>{low:.4g}</text>"
        f"<text x={width} y={height - 2} text-anchor=end>{right:g}</text></svg><p class=note>{legend}</p>"
    )


def rates(values: Mapping[str, tuple[float, Sequence[float] | None]]) -> Html:
    """Horizontal bars of fractions, each with its name, value and, as a thin line, its interval."""
    rows = []
    for name, (value, interval) in values.items():
        whisker = ""
        if interval:
            width = 100 * (interval[1] - interval[0])
            whisker = f"<u style='left:{100 * interval[0]:.1f}%;width:{width:.1f}%'></u>"
        rows.append(
            f"<tr><td>{escape(name)}</td><td class='bar rate'><i style='width:{100 * value:.1f}%'></i>{whisker}</td>"
            f"<td class=number>{value:.3f}</td></tr>"
        )
    return Html(f"<table class=bars>{''.join(rows)}</table>")


def scatter(points: Mapping[str, tuple[float, float]]) -> Html:
    """Named points (x, y) in the unit square."""
    size, margin = 200, 14
    marks, legend = [], []
    for index, (name, (x, y)) in enumerate(points.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        marks.append(
            f"<circle cx='{margin + x * size:.1f}' cy='{margin + (1 - y) * size:.1f}' r=5 fill='{colour}'>"
            f"<title>{escape(name)}: {x:.3f}, {y:.3f}</title></circle>"
        )
        legend.append(f"<span style='color:{colour}'>{escape(name)} ({x:.2f}, {y:.2f})</span>")
    side = size + 2 * margin
    frame = f"<rect class=frame x={margin} y={margin} width={size} height={size} />"
    return Html(
        f"<svg class=square viewBox='0 0 {side} {side}' role=img>{frame}{''.join(marks)}<text x=0 y=11>1</text>"
        f"<text x=2 y={side - 2}>0</text><text x={side - 2} y={side - 2} text-anchor=end>1</text></svg>"
        f"<p class=note>{' '.join(legend)}</p>"
    )


def columns(parts: dict[str, Html]) -> Html:
    """Pictures side by side, each under its title."""
    return Html(
        "<div class=columns>"
        + "".join(f"<figure><figcaption>{escape(title)}</figcaption>{part}</figure>" for title, part in parts.items())
        + "</div>"
    )


def section(title: str, *parts: str) -> Html:
    """A heading and what stands under it; parts are HTML."""
    return Html(f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>")


def paragraph(text: str) -> Html:
    """A paragraph of plain text."""
    return Html(f"<p>{escape(text)}</p>")


def page(title: str, note: str, *parts: str) -> str:
    """A whole document."""
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{escape(title)}</title>"
        '<meta name=viewport content="width=device-width, initial-scale=1">'
        f"<style>{_STYLE}</style></head><body><h1>{escape(title)}</h1>"
        f"<p class=note>{escape(note)}</p>{''.join(parts)}</body></html>\n"
    )
