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
    rewards = [name.removeprefix("rewards/").removesuffix("_reward") for name in reward_names(entries)]
    names = sorted({name for entry in entries for name in entry})
    parts = {reward: [name for name in names if name.startswith(f"{reward}/")] for reward in rewards}
    return {reward: names for reward, names in parts.items() if names}


def draw_charts(entries: Sequence[Entry], charts: Mapping[str, Sequence[str]]) -> dict[str, Markup]:
    """Draw curves of logged figures by step: title -> names of the figures. A chart without values is left out."""
    return {title: curves(series) for title, names in charts.items() if (series := series_of(entries, names))}


def draw_training(entries: Sequence[Entry]) -> dict[str, Markup]:
    """Draw the reward, each reward, and the KL divergence by step."""
    charts = {"Mean reward by step": ["reward"], "Each reward": reward_names(entries)}
    return draw_charts(entries, {**charts, "KL divergence from the base": ["kl"]})


def render_curves(entries: Sequence[Entry], name: str, max_steps: int) -> str:
    """Render the page: rewards and their parts, KL, entropy, length, learning rate, times, and evaluations."""
    steps = [entry for entry in entries if "reward" in entry]
    parts = {f"Parts of {owner}": names for owner, names in _reward_parts(steps).items()}
    times = series_of(steps, [f"time/{part}" for part in _TIMES])
    means = {key: sum(value for _, value in points) / len(points) for key, points in times.items()}
    evaluations = sorted({key for entry in entries for key in entry if key.startswith("eval_")})
    done = int(steps[-1]["step"]) if steps else 0
    skipped = int(steps[-1].get("videos/skipped") or 0) if steps else 0
    return render_page(
        "training.html.j2",
        f"Training of {name}",
        f"Step {done} of {max_steps}." + (f" {skipped} unreadable videos were skipped." if skipped else ""),
        charts=draw_charts(steps, {**_CHARTS, "Each reward": reward_names(steps), **parts}),
        times=curves(times, "seconds") if times else None,
        time_rows=[(key.removeprefix("time/"), mean, mean / means["time/total"]) for key, mean in means.items()],
        evaluations=draw_charts(entries, {key: [key] for key in evaluations}),
    )
