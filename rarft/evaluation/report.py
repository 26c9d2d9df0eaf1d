"""The evaluation report: an HTML page, and the headline table for a console."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import msgspec
import numpy as np
from markupsafe import Markup

from rarft.annotations.schema import DIFFICULTY_ORDER
from rarft.evaluation.explorer import explorer_data, explorer_texts
from rarft.evaluation.metrics import HEADLINE, PredictionTable, value_at
from rarft.evaluation.outcomes import DEFINITIONS, OUTCOMES, classify_outcome
from rarft.evaluation.score_metrics import SCORES
from rarft.reporting.charts import curves, histogram, rates, reliability, scatter
from rarft.reporting.html import compressed, render_page
from rarft.reporting.training_curves import draw_training
from rarft.reporting.training_log import Entry
from rarft.storage.location import Location

METRICS_JSON = "metrics.json"
REPORT_HTML = "report.html"
_BINS = 20
_BREAKDOWNS = {
    "by_difficulty": "By difficulty",
    "by_category": "By mismatch category",
    "by_length": "By length of the segment",
    "by_position": "By position of the segment in the video",
}
_BREAKDOWN_NOTES = {
    "by_difficulty": "original: queries that fit the video.",
    "by_category": "A query may have several categories; it counts in each of them.",
}
# Meaning of the headline metrics, by a label that starts with the term.
_TERMS = {
    "Refusal F1": "Precision: share of the refusals that are right. Recall: share of the queries that do not fit the "
    "video that are refused. F1: harmonic mean of both. Answers that are missing or cannot be read count as wrong.",
    "Relevance accuracy": "Share of the queries that are answered if they fit the video, and refused if they do not.",
    "RA-IoU": "Relevance-aware IoU: 0 if wrongly answered or refused, 1 for a correct refusal, otherwise the "
    "temporal IoU with the true segment. Mean over all queries.",
    "RA R@0.3": "Share of the queries with an RA-IoU of at least 0.3. R@0.5 and R@0.7 use 0.5 and 0.7.",
    "mIoU of relevant queries": "Mean temporal IoU of the queries that fit the video, 0 if refused.",
    "Refusal similarity": "Mean cosine similarity of the refusal and the true refusal, 0 without a refusal.",
    "Correction similarity": "Mean cosine similarity of the correction and the nearest query that fits the video, 0 "
    "without a correction.",
    "Refusal score: AUROC": "Probability that a query that does not fit has a higher score than one that fits.",
    "Format rate": "Share of the completions with exactly one think, answer and correction block, in this order.",
    "Mean reward": "Sum of the rewards of training, averaged over the queries.",
}
_COMPARISON_TERMS = {
    "change": "Difference between checkpoint and {base} on the queries that neither skipped.",
    "p": "Two-sided p-value, from the same resamples as the intervals: a small one means that chance hardly explains "
    "the change.",
}


def _by_candidate(metrics: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the metrics of each candidate by its name in the report."""
    base = metrics["base"]
    return {"checkpoint": metrics, **({base["name"]: base} if base else {}), **metrics["others"]}


def _defined(metrics: dict[str, Any], path: str) -> Any:
    """Return the metric at a path; None for a score of refusals with a denominator of 0 (0 in metrics.json)."""
    confusion = metrics["relevance"]["confusion"]
    refused, refusable = confusion["tn"] + confusion["fn"], confusion["tn"] + confusion["fp"]
    denominators = {"precision": refused, "recall": refusable, "f1": refused + refusable}
    undefined = {f"relevance.irrelevant.{name}" for name, count in denominators.items() if not count}
    return None if path in undefined else value_at(metrics, path)


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
    for label, *_, change in headline_rows(metrics):
        value, of_base = (_defined(one, HEADLINE[label]) if one else None for one in (metrics, base))
        change = None if value is None or of_base is None else change
        figures = [*([_format(of_base)] if base else []), _format(value), *([_format(change, "+")] if base else [])]
        figures += [_format(_defined(other, HEADLINE[label])) for other in others.values()]
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
        figures = [(_defined(one, path), value_at(one["intervals"], path)) for one in _by_candidate(metrics).values()]
        change, p = "–", None
        if compared and all(value is not None for value, _ in figures[:2]):
            change, p = f"{compared['difference']:+.3f}", compared["p"]
        rows.append({"name": label + suffix, "figures": figures, "change": change, "p": p})
    return rows


def _terms(metrics: dict[str, Any]) -> dict[str, str]:
    """Return the meaning of the terms of the headline table that it has."""
    labels = {label for label, *_ in headline_rows(metrics)}
    terms = {label: text for label, text in _TERMS.items() if label in labels}
    if metrics["base"]:
        terms |= {term: text.format(base=metrics["base"]["name"]) for term, text in _COMPARISON_TERMS.items()}
    return terms


def _roles(metrics: dict[str, Any]) -> dict[str, str]:
    """Return what each candidate is: its checkpoint or file, and its role in the comparison."""
    base = metrics["base"]["name"] if metrics["base"] else None
    roles: dict[str | None, str] = {
        base: "the reference that change and p compare with",
        "checkpoint": "the evaluated candidate",
    }
    return {
        name: ", ".join(filter(None, (one["checkpoint"], roles.get(name))))
        for name, one in _by_candidate(metrics).items()
    }


def _breakdowns(metrics: dict[str, Any], suffix: str) -> dict[str, tuple[str, list[tuple[Any, ...]]]]:
    """Return a note, and a table of the metrics of each candidate per group, for each grouping that has any."""
    paths = ("samples", "relevance.accuracy", "ra_iou.mean", "grounding.mean", "correction_similarity.all")
    return {
        title: (
            _BREAKDOWN_NOTES.get(key, ""),
            [
                (group + suffix, name, *(value_at(one[key][group], path) for path in paths))
                for group in metrics[key]
                for name, one in _by_candidate(metrics).items()
            ],
        )
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
    return (DIFFICULTY_ORDER.index(group), "") if group in DIFFICULTY_ORDER else (0, group)


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
) -> tuple[list[tuple[str, str, list[tuple[str, str | None]]]], Markup]:
    """Return a table of the outcomes of each candidate, with links to their queries, and a chart of their shares.

    A row is the title of the outcome, its definition, and the text and the link of each candidate, None for 0 queries.
    """
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
            cells.append((f"{of_one[outcome]:,} ({100 * share:.1f} %)", link if of_one[outcome] else None))
            shares[OUTCOMES[outcome], name] = (share, None)
        rows.append((OUTCOMES[outcome], DEFINITIONS[outcome], cells))
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
        roles=_roles(metrics),
        terms=_terms(metrics),
        gates=[(gate["gate"], "passed" if gate["passed"] else gate["reason"]) for gate in metrics["gates"]],
        judge=list(metrics["judge"].items()) if metrics["judge"] else [],
        charts=_charts(metrics, tables),
        training=draw_training(training),
        breakdowns=_breakdowns(metrics, suffix),
        queries=len(tables[names[0]].scored),
        data=compressed("data", msgspec.json.encode(explorer_data(scored, out, embed_clips))),
        texts=[compressed(name, msgspec.json.encode(texts)) for name, texts in explorer_texts(scored).items()],
    )
