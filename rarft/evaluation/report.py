"""The evaluation report as a page, and its headline table for a console."""

from collections.abc import Mapping, Sequence
from typing import Any

from rarft.evaluation.gallery import gallery
from rarft.evaluation.metrics import HEADLINE, PredictionTable, value_at
from rarft.reporting.html import Html, columns, histogram, rates, scatter, section, table
from rarft.reporting.html import page as html_page
from rarft.reporting.training_log import Entry, render_training

METRICS_JSON = "metrics.json"
REPORT_HTML = "report.html"
_BINS = 20
_ORDER = ("easy", "medium", "hard", "original", "unlabelled")
_BREAKDOWNS = {
    "by_difficulty": "By difficulty",
    "by_category": "By mismatch category",
    "by_length": "By length of the segment",
    "by_position": "By position of the segment in the video",
}


def _name_of_third(metrics: dict[str, Any]) -> str:
    """What the third checkpoint is called beside the others."""
    name = str(metrics["third"]["checkpoint"])
    return f"third, {name}" if name in ("base", "this checkpoint", metrics["checkpoint"]) else name


def _each(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of every checkpoint that was evaluated, by the name that the report gives it."""
    named = {"this checkpoint": metrics}
    if metrics.get("base"):
        named["base"] = metrics["base"]
    if metrics.get("third"):
        named[_name_of_third(metrics)] = metrics["third"]
    return named


def headline_rows(metrics: dict[str, Any]) -> list[tuple[str, float | None, float | None, float | None]]:
    """(name, checkpoint, base, difference) of each headline figure that is known anywhere."""
    rows = []
    for name, path in HEADLINE.items():
        value = value_at(metrics, path)
        base = value_at(metrics["base"], path) if metrics.get("base") else None
        if value is not None or base is not None:
            rows.append((name, value, base, value - base if value is not None and base is not None else None))
    return rows


def console_table(metrics: dict[str, Any]) -> str:
    """The headline figures as aligned text: before training and after where there is a base, and a third beside."""
    title = {True: "in-sample", False: "held-out", None: "evaluated"}[metrics["in_sample"]]
    with_base = bool(metrics.get("base"))
    header = f"{title + ', ' + str(metrics['samples']) + ' queries':<48}"
    third = metrics.get("third")
    name_of_third = f"  {_name_of_third(metrics):>6}" if third else ""
    lines = [header + (f"{'before':>8}{'after':>8}{'change':>9}" if with_base else f"{'value':>8}") + name_of_third]

    def figure(value: float | None, form: str, width: int) -> str:
        return f"{'-' if value is None else format(value, form):>{width}}"

    for name, value, base, change in headline_rows(metrics):
        label = f"{name} (in-sample)" if metrics["in_sample"] else name
        before = figure(base, ".3f", 8) if with_base else ""
        after = figure(value, ".3f", 8) + (figure(change, "+.3f", 9) if with_base else "")
        beside = figure(value_at(third, HEADLINE[name]), ".3f", len(name_of_third)) if third else ""
        lines.append(f"{label:<48}{before}{after}{beside}")
    return "\n".join(lines)


def _at(tree: Any, path: str) -> Any:
    for part in path.split("."):
        tree = tree.get(part) if isinstance(tree, dict) else None
    return tree


def _with_interval(value: float | None, interval: Sequence[float] | None) -> Html | None:
    if value is None:
        return None
    around = f" <span class=info>{interval[0]:.3f} to {interval[1]:.3f}</span>" if interval else ""
    return Html(f"{value:.3f}{around}")


def _headline(metrics: dict[str, Any], label: str) -> Html:
    rows = []
    for name, value, base, _ in headline_rows(metrics):
        path = HEADLINE[name]
        row: list[object] = [f"{name}{label}", _with_interval(value, _at(metrics["intervals"], path))]
        if metrics.get("base"):
            row.append(_with_interval(base, _at(metrics["base"]["intervals"], path)))
            compared = metrics["comparison"].get(path)
            change = f"{compared['difference']:+.3f}" if compared else None
            row += [change, f"{compared['p']:.3f}" if compared else None]
        if third := metrics.get("third"):
            row.append(_with_interval(_at(third, path), _at(third["intervals"], path)))
        rows.append(row)
    header = ["metric", "checkpoint", *(["base", "change", "p"] if metrics.get("base") else [])]
    header += [_name_of_third(metrics)] if metrics.get("third") else []
    return section("Headline, with 95 % intervals", table(header, rows))


def _breakdowns(metrics: dict[str, Any], label: str) -> list[Html]:
    parts = []
    for key, title in _BREAKDOWNS.items():
        rows = [
            (
                f"{name}{label}",
                figures["samples"],
                figures["relevance"]["accuracy"],
                figures["ra_iou"]["mean"],
                figures["grounding"]["mean"],
                figures["correction_similarity"]["all"],
            )
            for name, figures in metrics[key].items()
        ]
        if rows:
            header = ["group", "queries", "relevance accuracy", "RA-IoU", "mIoU", "correction similarity"]
            parts.append(section(title, table(header, rows)))
    return parts


def _refused(metrics: dict[str, Any], grouping: str) -> dict[str, tuple[float, Sequence[float] | None]]:
    """Share of the queries that do not fit which each checkpoint refused, by group, with its interval."""
    found = {}
    for name, figures in _each(metrics).items():
        for group, of_group in figures[grouping].items():
            if of_group["relevance"]["confusion"]["fp"] + of_group["relevance"]["confusion"]["tn"]:
                interval = _at(figures["intervals"][grouping][group], "relevance.irrelevant.recall")
                found[f"{group}, {name}"] = (of_group["relevance"]["irrelevant"]["recall"], interval)
    return found


def _plots(metrics: dict[str, Any], tables: Mapping[str, PredictionTable]) -> Html:
    pictures = {}
    for name, one in zip(_each(metrics), tables.values(), strict=True):
        ious = [row.iou for row in one.judged if row.iou is not None]
        if ious:
            counts = [0] * _BINS
            for iou in ious:
                counts[min(_BINS - 1, int(iou * _BINS))] += 1
            pictures[f"IoU of relevant queries, {name}"] = histogram(counts, 1.0, "", open_ended=False)
    if refused := _refused(metrics, "by_difficulty"):
        pictures["Queries that do not fit: share refused, by difficulty"] = rates(
            dict(sorted(refused.items(), key=lambda item: _ORDER.index(item[0].partition(",")[0])))
        )
    if refused := _refused(metrics, "by_category"):
        pictures["Queries that do not fit: share refused, by mismatch category"] = rates(
            dict(sorted(refused.items(), key=lambda item: item[0].partition(",")[0]))
        )
    points = {
        f"{kind}, {name}": (figures["relevance"][kind]["recall"], figures["relevance"][kind]["precision"])
        for name, figures in _each(metrics).items()
        for kind in ("relevant", "irrelevant")
    }
    pictures["Precision over recall of both classes"] = scatter(points)
    return section("Pictures", columns(pictures))


def render_report(metrics: dict[str, Any], tables: Mapping[str, PredictionTable], training: Sequence[Entry]) -> str:
    """Headline table, pictures, breakdowns, and a browser of examples.

    Args:
        metrics: what metrics.json holds.
        tables: predictions of `checkpoint`, and of `base` and `third` where they are evaluated, in this order.
        training: log of the training that led to it.
    """
    in_sample = metrics["in_sample"]
    label = " (in-sample)" if in_sample else ""
    note = {
        True: "In-sample: these videos were trained on. The figures say nothing about others.",
        False: "Held-out: videos that were not trained on.",
        None: "Whether the checkpoint was trained on these videos is not known here.",
    }[in_sample]
    parts = [_headline(metrics, label)]
    if metrics["gates"]:
        rows = [(gate["gate"], "passed" if gate["passed"] else gate["reason"]) for gate in metrics["gates"]]
        parts.append(section("Gates", table(["gate", "result"], rows)))
    if metrics["judge"]:
        parts.append(section("Judge", table(["", "value"], list(metrics["judge"].items()))))
    parts.append(_plots(metrics, tables))
    if training:
        parts.append(render_training(training))
    (_, shown), *others = zip(_each(metrics), tables.values(), strict=True)
    parts.append(section("Examples", gallery(shown.judged, {name: one.judged for name, one in others})))
    parts += _breakdowns(metrics, label)
    return html_page(f"Evaluation of {metrics['checkpoint']}{label}", note, *parts)
