"""The page of training curves, rewritten while a run trains."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup

from rarft.reporting.charts import curves
from rarft.reporting.html import render_page
from rarft.reporting.training_log import Entry, reward_names, series_of

_TIMES = ("decode", "rollout", "reward", "forward", "backward", "total")
_CHARTS = {
    "Reward": ["reward"],
    "KL divergence from the base model": ["kl"],
    "Completion length, tokens": ["completion_length"],
    "Entropy, nats per token": ["generation_entropy"],
    "Gradient norm": ["grad_norm"],
    "Learning rate": ["learning_rate"],
}


def _reward_parts(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Return the names of each reward's parts: `refuse_iou/iou` is a part of refuse_iou."""
    rewards = {name.removeprefix("rewards/").removesuffix("_reward") for entry in entries for name in entry}
    parts: dict[str, set[str]] = {}
    for entry in entries:
        for name in entry:
            owner, slash, _ = name.partition("/")
            if slash and owner in rewards:
                parts.setdefault(owner, set()).add(name)
    return {owner: sorted(names) for owner, names in sorted(parts.items())}


def draw_charts(entries: Sequence[Entry], charts: Mapping[str, Sequence[str]]) -> dict[str, Markup]:
    """Draw curves of logged figures by step.

    Args:
        entries: Entries of a training log.
        charts: Title -> names of the figures; a chart without any value is left out.
    """
    return {title: curves(series) for title, names in charts.items() if (series := series_of(entries, names))}


def draw_training(entries: Sequence[Entry]) -> dict[str, Markup]:
    """Draw the reward, each reward, and the KL divergence by step."""
    charts = {
        "Mean reward by step": ["reward"],
        "Each reward": reward_names(entries),
        "KL divergence from the base": ["kl"],
    }
    return draw_charts(entries, charts)


def render_curves(entries: Sequence[Entry], name: str, max_steps: int) -> str:
    """Render the page: rewards and their parts, KL, entropy, length, learning rate, times, and evaluations.

    Args:
        entries: Log so far; each entry has a `step`.
        name: Name of the run.
        max_steps: Number of steps of the run.
    """
    steps = [entry for entry in entries if "reward" in entry]
    parts = {f"Parts of {owner}": names for owner, names in _reward_parts(steps).items()}
    times = series_of(steps, [f"time/{part}" for part in _TIMES])
    means = {key: sum(value for _, value in points) / len(points) for key, points in times.items()}
    evaluations = {
        key: [key] for key in sorted({key for entry in entries for key in entry}) if key.startswith("eval_")
    }
    done = int(steps[-1]["step"]) if steps else 0
    skipped = int(steps[-1].get("videos/skipped") or 0) if steps else 0
    return render_page(
        "training.html.j2",
        f"Training of {name}",
        f"Step {done} of {max_steps}." + (f" {skipped} unreadable videos were skipped." if skipped else ""),
        charts=draw_charts(steps, {**_CHARTS, "Each reward": reward_names(steps), **parts}),
        times=curves(times) if times else None,
        time_rows=[(key.removeprefix("time/"), mean, mean / means["time/total"]) for key, mean in means.items()],
        evaluations=draw_charts(entries, evaluations),
    )
