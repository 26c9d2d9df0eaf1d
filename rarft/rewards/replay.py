"""Rewards of finished completions, term by term: to see why a completion scored what it did, and to tune rewards."""

import csv
from pathlib import Path
from typing import Any

import msgspec
from markupsafe import Markup

from rarft.annotations.schema import Sample
from rarft.errors import InputError
from rarft.progress import progress
from rarft.reporting.charts import histogram
from rarft.reporting.html import render_page
from rarft.rewards.registry import RewardFunction
from rarft.storage.files import Location, write_files

SCORES_CSV = "scores.csv"
REPORT_HTML = "report.html"

_BINS = 40
_MAX_LOWEST = 30  # completions on the page


def read_completions(path: Path, samples: list[Sample]) -> list[tuple[Sample, str]]:
    """Finished completions with their samples: rows with `completion`, and `id` or the `sample` of `rarft evaluate`.

    Raises:
        InputError: a row is no such thing, or its id is not in the data.
    """
    by_id = {sample.id: sample for sample in samples}
    rows = []
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            where = f"predictions {path}, line {number}"
            try:
                row = msgspec.json.decode(line)
                identity = row["id"] if "id" in row else row["sample"]["id"]
                completion = row["completion"]
            except (msgspec.DecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
                raise InputError(f'{where}: is no {{"id": .., "completion": ..}} ({error})') from error
            if identity not in by_id:
                raise InputError(f"{where}: id {identity} is not in the data; give the data that was predicted on")
            if not isinstance(completion, str):
                raise InputError(f"{where}: completion is no text")
            rows.append((by_id[identity], completion))
    if not rows:
        raise InputError(f"predictions {path}: holds no completion")
    return rows


def reward_columns(sample: Sample) -> dict[str, list[Any]]:
    """The columns that rewards read, for one completion of a sample."""
    return {
        "task_type": [sample.task_type],
        "solution": [sample.segment],
        "durations": [sample.duration],
        "query": [sample.query],
        "reference_queries": [sample.reference_queries],
        "gt_answers": [sample.gt_answer],
        "contrast_answers": [sample.contrast_answer],
    }


def score_completion(sample: Sample, completion: str, rewards: dict[str, RewardFunction]) -> dict[str, float | None]:
    """Every reward of one completion by name, and every part that it logs; None where a reward does not apply."""
    scores: dict[str, float | None] = {}
    parts: dict[str, float | None] = {}
    for name, reward in rewards.items():
        (scores[name],) = reward(
            prompts=[sample.query],
            completions=[completion],
            completion_ids=[[]],
            log_metric=parts.__setitem__,
            log_extra=lambda column, values: None,
            trainer_state=None,
            **reward_columns(sample),
        )
    return scores | parts


def replay(
    rows: list[tuple[Sample, str]], rewards: dict[str, RewardFunction], weights: list[float], out: Location
) -> dict[str, float | None]:
    """Score completions into `out`: scores.csv and, last, report.html.

    Args:
        rows: completions with their samples; every sample's duration is known.
        rewards: reward functions by name.
        weights: of the rewards, in their order.
        out: folder to write into.

    Returns:
        The mean of each reward, None where it applies to no completion, and of their weighted sum as `reward`.

    Raises:
        InputError: a sample without a duration, or a reward that fails.
    """
    if unknown := [sample.id for sample, _ in rows if sample.duration is None]:
        raise InputError(
            f"--data: {len(unknown)} queries have no known duration, such as {unknown[0]}; rewards need it"
        )
    table_rows: list[dict[str, Any]] = []
    for sample, completion in progress(rows, "scoring", total=len(rows), unit=" completions"):
        terms = score_completion(sample, completion, rewards)
        total = sum(weight * (terms[name] or 0.0) for name, weight in zip(rewards, weights, strict=True))
        about = {
            "id": sample.id,
            "task_type": sample.task_type,
            "difficulty": sample.difficulty,
            "query": sample.query,
        }
        table_rows.append({**about, "reward": total, **terms, "completion": completion})
    header = [*dict.fromkeys(key for row in table_rows for key in row if key != "completion"), "completion"]
    with write_files(out, last=REPORT_HTML) as folder:
        with (folder / SCORES_CSV).open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, header)
            writer.writeheader()
            writer.writerows(table_rows)
        (folder / REPORT_HTML).write_text(_render_page(table_rows, ["reward", *rewards]), encoding="utf-8")
    return {name: _mean([row[name] for row in table_rows]) for name in ("reward", *rewards)}


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _draw_distribution(values: list[float]) -> Markup:
    """Draw a histogram from 0, or from the lowest value if it is negative, with its range."""
    low = min(0.0, *values)
    width = max(max(values) - low, 1e-9)
    counts = [0] * _BINS
    for value in values:
        counts[min(_BINS - 1, int((value - low) / width * _BINS))] += 1
    chart = histogram(counts, width, "", open_ended=False)
    return chart + Markup('<p class="note">from {:.2f} to {:.2f}</p>').format(low, low + width)


def _render_page(rows: list[dict[str, Any]], names: list[str]) -> str:
    task_types = sorted({row["task_type"] for row in rows})
    terms = dict.fromkeys(key for row in rows for key in row if isinstance(row[key], float))
    means = [
        (term, *(_mean([row.get(term) for row in rows if row["task_type"] == task_type]) for task_type in task_types))
        for term in terms
    ]
    lowest = sorted(rows, key=lambda row: row["reward"])[:_MAX_LOWEST]
    return render_page(
        "replay.html.j2",
        f"Rewards of {len(rows)} completions",
        "scores.csv contains every term of every completion.",
        task_types=task_types,
        means=means,
        names=names,
        distributions={
            name: _draw_distribution([row[name] for row in rows if row[name] is not None] or [0.0]) for name in names
        },
        lowest=[(row["query"], row["task_type"], row["completion"], *(row[name] for name in names)) for row in lowest],
    )
