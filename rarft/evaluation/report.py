"""The evaluation report: an HTML page, and the headline table for a console."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
import numpy as np
from markupsafe import Markup

from rarft.evaluation.explorer import explorer_data, explorer_texts
from rarft.evaluation.metrics import HEADLINE, PredictionTable, value_at
from rarft.evaluation.outcomes import OUTCOMES, classify_outcome
from rarft.evaluation.score_metrics import SCORES
from rarft.reporting.charts import curves, histogram, rates, reliability, scatter
from rarft.reporting.html import compressed, render_page
from rarft.reporting.training_curves import draw_training
from rarft.reporting.training_log import Entry
from rarft.storage.location import Location

METRICS_JSON = "metrics.json"
REPORT_HTML = "report.html"
_BINS = 20
_DIFFICULTIES = ("easy", "medium", "hard", "original", "unlabelled")
_BREAKDOWNS = {
    "by_difficulty": "By difficulty",
    "by_category": "By mismatch category",
    "by_length": "By length of the segment",
    "by_position": "By position of the segment in the video",
}


def _by_candidate(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics of each candidate by its name in the report."""
    base = metrics["base"]
    return {"checkpoint": metrics, **({base["name"]: base} if base else {}), **metrics["others"]}


def headline_rows(metrics: dict[str, Any]) -> list[tuple[str, float | None, float | None, float | None]]:
    """Return (label, checkpoint, base, difference) of each headline metric that is known for either.

    The difference is that of the queries that neither skipped.
    """
    rows = []
    for label, path in HEADLINE.items():
        value, base = (value_at(one, path) if one else None for one in (metrics, metrics["base"]))
        if value is not None or base is not None:
            compared = (metrics["comparison"] or {}).get(path)
            rows.append((label, value, base, compared["difference"] if compared else None))
    return rows


def console_table(metrics: dict[str, Any]) -> str:
    """Return the headline metrics as aligned text: the evaluated candidate, the reference, and the others."""
    title = {True: "in-sample", False: "held-out set", None: "evaluated"}[metrics["in_sample"]]
    base, others = metrics["base"], metrics["others"]
    names = [*([base["name"]] if base else []), "checkpoint", *(["change"] if base else []), *others]
    widths = [max(8, len(name)) for name in names]
    skipped = f", {metrics['skipped']} skipped" if metrics["skipped"] else ""
    lines = [_align(f"{title}, {metrics['samples']} queries{skipped}", names, widths)]
    for label, value, of_base, change in headline_rows(metrics):
        figures = [*([_format(of_base)] if base else []), _format(value), *([_format(change, "+")] if base else [])]
        figures += [_format(value_at(other, HEADLINE[label])) for other in others.values()]
        lines.append(_align(f"{label} (in-sample)" if metrics["in_sample"] else label, figures, widths))
    if any(one["skipped"] for one in _by_candidate(metrics).values()):
        counts = [*([str(base["skipped"])] if base else []), str(metrics["skipped"]), *([""] if base else [])]
        counts += [str(other["skipped"]) for other in others.values()]
        lines.append(_align("Skipped queries, counted as wrong", counts, widths))
    return "\n".join(lines)


def _align(label: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"{label:<44}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths, strict=True))


def _format(value: float | None, sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"


def _headline(metrics: dict[str, Any], suffix: str) -> list[dict[str, Any]]:
    """Return the rows of the headline table; each figure is (value, interval)."""
    rows: list[dict[str, Any]] = [
        {
            "name": label,
            "figures": [(one[name], None) for one in _by_candidate(metrics).values()],
            "change": "",
            "p": "",
        }
        for label, name in (("Queries", "samples"), ("Skipped queries, counted as wrong", "skipped"))
    ]
    for label, *_ in headline_rows(metrics):
        path = HEADLINE[label]
        compared = (metrics["comparison"] or {}).get(path)
        figures = [(value_at(one, path), value_at(one["intervals"], path)) for one in _by_candidate(metrics).values()]
        change, p = (f"{compared['difference']:+.3f}", compared["p"]) if compared else ("–", None)
        rows.append({"name": label + suffix, "figures": figures, "change": change, "p": p})
    return rows


def _breakdowns(metrics: dict[str, Any], suffix: str) -> dict[str, list[tuple[Any, ...]]]:
    """Return a table of the evaluated candidate's metrics per group for each grouping that has any."""
    paths = ("samples", "relevance.accuracy", "ra_iou.mean", "grounding.mean", "correction_similarity.all")
    return {
        title: [(name + suffix, *(value_at(group, path) for path in paths)) for name, group in metrics[key].items()]
        for key, title in _BREAKDOWNS.items()
        if metrics[key]
    }


def _refusal_rates(metrics: dict[str, Any], grouping: str) -> dict[tuple[str, str], tuple[float, Any]]:
    """Return the recall of refusals, with its interval, by (group, candidate), for groups with refusable queries."""
    found = {}
    for name, figures in _by_candidate(metrics).items():
        for group, of_group in figures[grouping].items():
            if of_group["relevance"]["confusion"]["fp"] + of_group["relevance"]["confusion"]["tn"]:
                path = "relevance.irrelevant.recall"
                found[group, name] = (value_at(of_group, path), value_at(figures["intervals"][grouping][group], path))
    return found


def _group_order(key: tuple[str, str]) -> tuple[int, str]:
    """Sort difficulties by difficulty, and other groups by name."""
    group = key[0]
    return (_DIFFICULTIES.index(group), "") if group in _DIFFICULTIES else (0, group)


def _charts(metrics: dict[str, Any], tables: Mapping[str, PredictionTable]) -> dict[str, Markup]:
    charts = {}
    for name, one in tables.items():
        if ious := [row.iou for row in one.scored if row.iou is not None]:
            counts, _ = np.histogram(ious, _BINS, (0.0, 1.0))
            charts[f"IoU of relevant queries, {name}"] = histogram(
                counts.tolist(), 1.0, "", open_ended=False, title="IoU"
            )
    for title, grouping in (("difficulty", "by_difficulty"), ("mismatch category", "by_category")):
        if refused := _refusal_rates(metrics, grouping):
            charts[f"Share of irrelevant queries refused, by {title}"] = rates(
                {key: refused[key] for key in sorted(refused, key=_group_order)}, "share refused"
            )
    points = {
        (kind, name): (figures["relevance"][kind]["recall"], figures["relevance"][kind]["precision"])
        for name, figures in _by_candidate(metrics).items()
        for kind in ("relevant", "irrelevant")
    }
    charts["Precision over recall of both classes"] = scatter(points, "recall", "precision")
    for score, title in SCORES.items():
        scores = {name: one.refusal_scores[score] for name, one in tables.items()}
        known = {name: one for name, one in scores.items() if one.absent_N.any() and not one.absent_N.all()}
        if known:
            errors = {name: one.trade_off() for name, one in known.items()}
            charts[f"Misses over false alarms, by threshold of the {title}"] = curves(
                errors, "miss rate", "false-alarm rate"
            )
            bins = {name: [point[:2] for point in one.reliability()] for name, one in known.items()}
            charts[f"Reliability of the {title}"] = reliability(bins, title, "share of absent queries")
    return charts


def _outcomes(
    tables: Mapping[str, PredictionTable],
) -> tuple[list[tuple[str, list[tuple[str, str]]]], Markup]:
    """Return a table of the outcomes of each candidate, with links to their queries, and a chart of their shares."""
    counts = {name: Counter(classify_outcome(row)[0] for row in table.scored) for name, table in tables.items()}
    totals = {outcome: sum(of_one[outcome] for of_one in counts.values()) for outcome in OUTCOMES}
    evaluated = next(iter(counts.values()))
    ranked = sorted(
        (outcome for outcome in OUTCOMES if totals[outcome]), key=lambda one: (one == "right", -evaluated[one])
    )
    rows, shares = [], {}
    for outcome in ranked:
        cells = []
        for name, of_one in counts.items():
            share = of_one[outcome] / max(1, of_one.total())
            link = "#" + urlencode({"view": "queries", "candidate": name, "outcome": outcome})
            cells.append((f"{of_one[outcome]:,} ({100 * share:.1f} %)", link))
            shares[OUTCOMES[outcome], name] = (share, None)
        rows.append((OUTCOMES[outcome], cells))
    return rows, rates(shares, "share of all queries")


def render_report(
    metrics: dict[str, Any],
    tables: Mapping[str, PredictionTable],
    training: Sequence[Entry],
    out: Location,
    embed_clips: int = 0,
) -> str:
    """Render the page: outcomes, headline table, gates, plots, training curves, breakdowns, and the explorer.

    Args:
        metrics: Content of metrics.json.
        tables: Predictions of each candidate by name, the evaluated one first.
        training: Log of the run that trained the checkpoint.
        out: Folder of the page.
        embed_clips: Number of queries of each outcome whose videos are embedded.
    """
    suffix = " (in-sample)" if metrics["in_sample"] else ""
    note = {
        True: "In-sample: the checkpoint was trained on these videos. The metrics do not generalize to other videos.",
        False: "Held-out: the checkpoint was not trained on these videos.",
        None: "It is unknown whether the checkpoint was trained on these videos.",
    }[metrics["in_sample"]]
    names = list(tables)
    outcomes, shares = _outcomes(tables)
    scored = {name: table.scored for name, table in tables.items()}
    return render_page(
        "evaluation.html.j2",
        f"Evaluation of {metrics['checkpoint']}{suffix}",
        note,
        names=names,
        outcomes=outcomes,
        shares=shares,
        header=[*names[:2], "change", "p", *names[2:]] if metrics["base"] else names,
        headline=_headline(metrics, suffix),
        sources={name: one["checkpoint"] for name, one in _by_candidate(metrics).items()} if names[1:] else {},
        gates=[(gate["gate"], "passed" if gate["passed"] else gate["reason"]) for gate in metrics["gates"]],
        judge=list(metrics["judge"].items()) if metrics["judge"] else [],
        charts=_charts(metrics, tables),
        training=draw_training(training),
        breakdowns=_breakdowns(metrics, suffix),
        queries=len(tables[names[0]].scored),
        data=compressed("data", msgspec.json.encode(explorer_data(scored, out, embed_clips))),
        texts=[compressed(name, msgspec.json.encode(texts)) for name, texts in explorer_texts(scored).items()],
    )
