"""Pages of training curves: of one run, rewritten while it trains, and of several runs on the same axes."""

import json
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from rarft.reporting.charts import curves
from rarft.reporting.html import compressed, render_page
from rarft.reporting.training_log import Entry, reward_names, series_of

_TIMES = ("decode", "rollout", "reward", "forward", "backward", "total")
# Title -> (unit of the axis, figures).
_CHARTS = {
    "Reward": ("reward", ["reward"]),
    "KL divergence from the base model": ("nats", ["kl"]),
    "Completion length": ("tokens", ["completion_length"]),
    "Entropy": ("nats per token", ["generation_entropy"]),
    "Gradient norm": ("norm", ["grad_norm"]),
    "Learning rate": ("learning rate", ["learning_rate"]),
}
_Charts = Mapping[str, tuple[str, Sequence[str]]]


def _reward_charts(entries: Sequence[Entry]) -> dict[str, tuple[str, list[str]]]:
    """Return a chart of all rewards, and one of the parts of each: `refuse_iou/iou` is a part of refuse_iou."""
    names = sorted({name for entry in entries for name in entry})
    owners = [_label(name) for name in reward_names(entries)]
    parts = {owner: [name for name in names if name.startswith(f"{owner}/")] for owner in owners}
    charts = {f"Parts of {owner}": ("value", found) for owner, found in parts.items() if found}
    return {"Each reward": ("reward", reward_names(entries)), **charts}


def _label(name: str) -> str:
    """Return the name of a figure in a legend: `format` for `rewards/format_reward`."""
    return name.removeprefix("rewards/").removesuffix("_reward")


def draw_charts(runs: Mapping[str, Sequence[Entry]], charts: _Charts) -> dict[str, Markup]:
    """Draw curves of logged figures by step. A chart without values is left out.

    The figures of one run share a chart; with several runs, each figure has a chart with a line for each run.
    """
    drawn: dict[str, Markup] = {}
    for title, (unit, names) in charts.items():
        if len(runs) == 1:
            (entries,) = runs.values()
            groups = {title: {_label(name): points for name, points in series_of(entries, names).items()}}
        else:
            by_run = {run: series_of(entries, names) for run, entries in runs.items()}
            groups = {
                (f"{title}: {_label(name)}" if len(names) > 1 else title): {
                    run: series[name] for run, series in by_run.items() if name in series
                }
                for name in names
            }
        drawn |= {name: curves(series, unit, smooth=True) for name, series in groups.items() if series}
    return drawn


def draw_training(entries: Sequence[Entry]) -> dict[str, Markup]:
    """Draw the reward, each reward, and the KL divergence by step."""
    charts = {"Mean reward by step": ("reward", ["reward"]), "Each reward": ("reward", reward_names(entries))}
    return draw_charts({"": entries}, {**charts, "KL divergence from the base": ("nats", ["kl"])})


def render_runs(runs: Mapping[str, Sequence[Entry]], title: str, note: str) -> str:
    """Render the page: rewards and their parts, KL, entropy, length, learning rate, times, evaluations, completions.

    Args:
        runs: Log of each run by its name.
        title: Title of the page.
        note: Line below the title.
    """
    steps = {run: [entry for entry in entries if "reward" in entry] for run, entries in runs.items()}
    everything = [entry for entries in runs.values() for entry in entries]
    times = {"Time of a step": ("seconds", [f"time/{part}" for part in _TIMES])}
    evaluations = sorted({key for entry in everything for key in entry if key.startswith("eval_")})
    groups = [
        {"run": run, **entry["completions"]}
        for run, entries in runs.items()
        for entry in entries
        if entry.get("completions")
    ]
    return render_page(
        "training.html.j2",
        title,
        note,
        charts=draw_charts(steps, {**_CHARTS, **_reward_charts(everything)}),
        times=draw_charts(steps, times),
        time_rows=[row for run, entries in steps.items() for row in _time_rows(run, entries)],
        evaluations=draw_charts(runs, {key: ("", [key]) for key in evaluations}),
        completions=compressed("completions", json.dumps(groups).encode()) if groups else None,
    )


def _time_rows(run: str, entries: Sequence[Entry]) -> list[tuple[str, str, float, float]]:
    """Return (run, part, mean seconds, share of the step) of each part of a step."""
    means = {
        part: sum(value for _, value in points) / len(points)
        for part in _TIMES
        for points in series_of(entries, [f"time/{part}"]).values()
    }
    return [(run, part, mean, mean / means["total"]) for part, mean in means.items()]


def render_curves(entries: Sequence[Entry], name: str, max_steps: int) -> str:
    """Render the page of a run that trains."""
    last = next((entry for entry in reversed(entries) if "reward" in entry), {})
    skipped = int(last.get("videos/skipped") or 0)
    note = f"Step {int(last.get('step', 0))} of {max_steps}."
    note += f" {skipped} unreadable videos were skipped." if skipped else ""
    return render_runs({name: entries}, f"Training of {name}", note)
