"""The curves of a training run as a page, written while it runs."""

from collections.abc import Sequence

from rarft.reporting.html import Html, columns, curves, page, section, table
from rarft.reporting.training_log import Entry, reward_names, series_of

_TIMES = ("decode", "rollout", "reward", "forward", "backward")
_PICTURES = {
    "Reward": ("reward",),
    "KL divergence from the base model": ("kl",),
    "Completion length, tokens": ("completion_length",),
    "Entropy, nats a token": ("generation_entropy",),
    "Gradient norm": ("grad_norm",),
    "Learning rate": ("learning_rate",),
}


def _parts(entries: Sequence[Entry]) -> dict[str, list[str]]:
    """Names of the rewards' parts by their reward: `refuse_iou/iou` is a part of refuse_iou."""
    rewards = {name.removeprefix("rewards/").removesuffix("_reward") for entry in entries for name in entry}
    parts: dict[str, set[str]] = {}
    for entry in entries:
        for name in entry:
            owner, slash, _ = name.partition("/")
            if slash and owner in rewards:
                parts.setdefault(owner, set()).add(name)
    return {owner: sorted(names) for owner, names in sorted(parts.items())}


def render_curves(entries: Sequence[Entry], name: str, max_steps: int) -> str:
    """The page: reward and its parts, KL, entropy, length, learning rate, times, and evaluations.

    Args:
        entries: the log so far, each with its `step`.
        name: of the run.
        max_steps: of the whole run.
    """
    steps = [entry for entry in entries if "reward" in entry]
    pictures: dict[str, Html] = {
        title: curves(series) for title, names in _PICTURES.items() if (series := series_of(steps, names))
    }
    drawn = {
        "Each reward": reward_names(steps),
        **{f"Parts of {owner}": names for owner, names in _parts(steps).items()},
    }
    pictures |= {title: curves(series) for title, names in drawn.items() if (series := series_of(steps, names))}
    shown = [f"time/{part}" for part in (*_TIMES, "total")]
    times = series_of(steps, shown)
    parts = [section("Learning", columns(pictures))]
    if times:
        means = {key: sum(value for _, value in points) / len(points) for key, points in times.items()}
        rows = [(key.removeprefix("time/"), value, value / means["time/total"]) for key, value in means.items()]
        parts.append(section("Time of a step, seconds", curves(times), table(["part", "mean", "share"], rows)))
    evaluations = series_of(entries, sorted({key for entry in entries for key in entry if key.startswith("eval_")}))
    if evaluations:
        parts.append(
            section(
                "Evaluation during training", columns({key: curves({key: line}) for key, line in evaluations.items()})
            )
        )
    done = int(steps[-1]["step"]) if steps else 0
    skipped = int(steps[-1].get("videos/skipped") or 0) if steps else 0
    note = f"Step {done} of {max_steps}." + (
        f" {skipped} videos could not be read and were skipped." if skipped else ""
    )
    return page(f"Training of {name}", note, *parts)
