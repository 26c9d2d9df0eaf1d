"""The evaluation report as a page, and its headline table for a console."""

from typing import Any

from rarft.evaluation.metrics import HEADLINE, Judged, value_at
from rarft.evaluation.predict import Prediction
from rarft.html import page as html_page
from rarft.html import section, table

_EXAMPLES = 20


def headline_rows(metrics: dict[str, Any]) -> list[tuple[str, float, float | None, float | None]]:
    """(name, checkpoint, base, difference) of each headline figure; the latter two None without a base."""
    rows = []
    for name, path in HEADLINE.items():
        value = value_at(metrics, path)
        base = value_at(metrics["base"], path) if metrics.get("base") else None
        rows.append((name, value, base, None if base is None else value - base))
    return rows


def console_table(metrics: dict[str, Any]) -> str:
    """The headline figures as aligned text, before training and after where there is a base."""
    title = {True: "in-sample", False: "held-out", None: "evaluated"}[metrics["in_sample"]]
    with_base = bool(metrics.get("base"))
    header = f"{title + ', ' + str(metrics['samples']) + ' queries':<48}"
    lines = [header + (f"{'before':>8}{'after':>8}{'change':>9}" if with_base else f"{'value':>8}")]
    for name, value, base, change in headline_rows(metrics):
        label = f"{name} (in-sample)" if metrics["in_sample"] else name
        figures = f"{value:8.3f}" if base is None else f"{base:8.3f}{value:8.3f}{change:+9.3f}"
        lines.append(f"{label:<48}{figures}")
    return "\n".join(lines)


def _worst(predictions: list[Prediction]) -> list[tuple[object, ...]]:
    judged = sorted((Judged(prediction) for prediction in predictions), key=lambda row: row.ra_iou)
    return [
        (
            row.prediction.sample.video.rsplit("/", 1)[-1],
            row.prediction.sample.query,
            row.prediction.sample.task_type,
            str(row.prediction.sample.segment or "–"),
            row.prediction.completion,
            row.ra_iou,
        )
        for row in judged[:_EXAMPLES]
    ]


def render_report(metrics: dict[str, Any], predictions: list[Prediction]) -> str:
    """Headline table, breakdowns, and the worst predictions."""
    in_sample = metrics["in_sample"]
    label = " (in-sample)" if in_sample else ""
    note = {
        True: "In-sample: these videos were trained on. The figures say nothing about others.",
        False: "Held-out: videos that were not trained on.",
        None: "Whether the checkpoint was trained on these videos is not known here.",
    }[in_sample]
    headline = [(f"{name}{label}", *values) for name, *values in headline_rows(metrics)]
    parts = [section("Headline", table(["metric", "checkpoint", "base", "change"], headline))]
    for key, title in (("by_difficulty", "By difficulty"), ("by_category", "By mismatch category")):
        rows = [
            (f"{name}{label}", figures["samples"], figures["accuracy"], figures["ra_iou"])
            for name, figures in metrics[key].items()
        ]
        if rows:
            parts.append(section(title, table(["group", "queries", "relevance accuracy", "RA-IoU"], rows)))
    header = ["video", "query", "task", "truth", "completion", "RA-IoU"]
    parts.append(section("Worst predictions first", table(header, _worst(predictions))))
    return html_page(f"Evaluation of {metrics['checkpoint']}{label}", note, *parts)
