"""Replay of rewards on finished completions, term by term: explains scores and helps to tune rewards."""

import csv
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from markupsafe import Markup

from rarft.annotations.encoding import replace_surrogates
from rarft.annotations.reader import MalformedLine, read_items
from rarft.annotations.schema import Sample
from rarft.completion import parse_completion
from rarft.errors import InputError
from rarft.progress import progress
from rarft.reporting.charts import histogram
from rarft.reporting.html import render_page
from rarft.rewards.columns import RewardFunction, apply_reward
from rarft.storage.location import Location

SCORES_CSV = "scores.csv"
REPORT_HTML = "report.html"

_OUTCOMES = {"segment": "segments", "refusal": "refusals", "unreadable": "unreadable", "none": "without an answer"}
_BINS = 40
_MAX_SHOWN = 30  # completions on the page

logger = logging.getLogger(__name__)


class _Id(msgspec.Struct):
    id: str


class _Row(msgspec.Struct):
    completion: str
    id: str | None = None
    sample: _Id | None = None


def read_completions(path: Path, samples: list[Sample]) -> list[tuple[Sample, str]]:
    """Read finished completions: rows with `completion`, and `id` or the `sample` of `rarft evaluate`.

    Raises:
        InputError: A row is malformed, or its id is not in the data.
    """
    by_id = {sample.id: sample for sample in samples}
    rows = []
    for number, item in enumerate(read_items(path, frozenset({"completion"})), 1):
        try:
            if isinstance(item, MalformedLine):
                raise ValueError(item.problem)
            row = msgspec.convert(item, _Row)
            if (key := row.id or (row.sample and row.sample.id)) is None:
                raise ValueError("no id")
        except ValueError as error:
            fix = 'use {"id": .., "completion": ..}'
            raise InputError(f"{path}, row {number}: malformed ({error}); {fix}") from error
        if key not in by_id:
            raise InputError(f"{path}, row {number}: id {key} is not in the data; check --data")
        rows.append((by_id[key], replace_surrogates(row.completion)))
    if not rows:
        raise InputError(f"{path}: contains no completions; check the file")
    return rows


def _score_completion(sample: Sample, completion: str, rewards: dict[str, RewardFunction]) -> dict[str, float | None]:
    """Return every reward of one completion, and every term that they log; None where a reward does not apply."""
    terms: dict[str, float | None] = {}
    scores = {
        name: apply_reward(reward, [sample], [completion], log_metric=terms.__setitem__)[0]
        for name, reward in rewards.items()
    }
    return scores | terms


def replay(
    rows: list[tuple[Sample, str]], rewards: dict[str, RewardFunction], weights: list[float], out: Location
) -> dict[str, float | None]:
    """Score completions and write scores.csv and, last, report.html.

    Returns:
        The mean of each reward, None where it never applies, and of their weighted sum as `reward`.

    Raises:
        InputError: A sample has no duration, or a reward fails.
    """
    if unknown := [sample.id for sample, _ in rows if sample.duration is None]:
        raise InputError(
            f"{len(unknown)} queries have no known duration, such as {unknown[0]}; validate the data with its videos"
        )
    table_rows: list[dict[str, Any]] = []
    for sample, completion in progress(rows, "scoring", unit=" completions"):
        scores = _score_completion(sample, completion, rewards)
        total = sum(weight * (scores[name] or 0.0) for name, weight in zip(rewards, weights, strict=True))
        fields = {name: getattr(sample, name) for name in ("id", "task_type", "difficulty", "query")}
        fields["answer"] = parse_completion(completion).outcome or "none"
        table_rows.append({**fields, "reward": total, **scores, "completion": completion})
    answers = Counter(row["answer"] for row in table_rows)
    logger.info("answers: %s", ", ".join(f"{answers[name]} {title}" for name, title in _OUTCOMES.items()))
    header = [*dict.fromkeys(key for row in table_rows for key in row if key != "completion"), "completion"]
    with out.write_files(last=REPORT_HTML) as folder:
        with (folder / SCORES_CSV).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, header)
            writer.writeheader()
            writer.writerows(table_rows)
        (folder / REPORT_HTML).write_text(_render_page(table_rows, ["reward", *rewards]), encoding="utf-8")
    return {name: _mean([row[name] for row in table_rows]) for name in ("reward", *rewards)}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _draw_distribution(name: str, values: list[float]) -> Markup:
    """Draw a histogram from 0, or from the lowest value if it is negative."""
    low = min(0.0, *values)
    width = max(max(values) - low, 1e-9)
    counts, _ = np.histogram(values, _BINS, (low, low + width))
    return histogram(counts.tolist(), low + width, "", open_ended=False, low=low, title=name, counted="completions")


def _render_page(rows: list[dict[str, Any]], names: list[str]) -> str:
    task_types = sorted({row["task_type"] for row in rows})
    terms = dict.fromkeys(key for row in rows for key in row if isinstance(row[key], float))
    means = [
        (term, *(_mean([row.get(term) for row in rows if row["task_type"] == task_type]) for task_type in task_types))
        for term in terms
    ]
    lowest = sorted(rows, key=lambda row: row["reward"])[:_MAX_SHOWN]
    return render_page(
        "replay.html.j2",
        f"Rewards of {len(rows)} completions",
        "scores.csv contains every term of every completion.",
        task_types=task_types,
        means=means,
        names=names,
        distributions={
            name: _draw_distribution(name, [row[name] for row in rows if row[name] is not None] or [0.0])
            for name in names
        },
        answers=[
            (title, *(sum((row["answer"], row["task_type"]) == (name, one) for row in rows) for one in task_types))
            for name, title in _OUTCOMES.items()
        ],
        lowest=[
            (row["query"], row["task_type"], row["answer"], row["completion"], *(row[name] for name in names))
            for row in lowest
        ],
    )
