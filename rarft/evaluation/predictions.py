"""Predictions: what a checkpoint said to each query, as we write them and as others do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from rarft.errors import InputError
from rarft.response import parse
from rarft.riq.query_checks import DIFFICULTY_KEYS, known_difficulty
from rarft.riq.schema import Sample, Source
from rarft.riq.survey import base_name, read_boolean
from rarft.segments import Segment, is_valid

_WHAT = "--predictions"


class Prediction(msgspec.Struct, frozen=True):
    """What a checkpoint said to one query, and what was found out about it.

    Attributes:
        sample: the query with its truth.
        completion: the text that was generated.
        rewards: the terms that training would have given it.
        refusal_similarity: cosine of a refusal's answer and the true one; None where there is none to compare.
        correction_similarity: cosine of the correction and the reference query nearest to it; None likewise.
        categories: how the query mismatches the video, as the judge or the rules read the refusal; None: not read.
        consistency: how well the reasoning bears the answer, 0 to 5, by the judge; None: not judged.
    """

    sample: Sample
    completion: str
    rewards: dict[str, float] = {}
    refusal_similarity: float | None = None
    correction_similarity: float | None = None
    categories: list[str] | None = None
    consistency: int | None = None


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write `predictions.jsonl`, one a line."""
    path.write_bytes(b"".join(msgspec.json.encode(prediction) + b"\n" for prediction in predictions))


def _rows(path: Path) -> list[Any]:
    """The rows of a JSON list or of JSON Lines."""
    content = path.read_bytes()
    try:
        if content.lstrip()[:1] == b"[":
            return list(json.loads(content))
        return [json.loads(line) for line in content.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{_WHAT} {path}: is neither a JSON list nor JSON Lines ({error})") from error


def _segment(value: Any) -> Segment | None:
    try:
        segment = (float(value[0]), float(value[1]))
    except (TypeError, ValueError, IndexError, KeyError):
        return None
    return segment if is_valid(segment) else None


def _published(row: dict[str, Any], number: int, file: str) -> Prediction:
    """A row of the published inference format.

    Raises:
        ValueError: a field is missing or is not what it must be; the message names it.
    """
    for name in ("video", "query", "model_output"):
        if not isinstance(row.get(name), str):
            raise ValueError(f"{name} is missing or no text")
    relevant = read_boolean(row.get("gt_relevant"))
    if relevant is None:
        raise ValueError("gt_relevant is missing or no truth value")
    segment = _segment(row.get("gt_timestamp")) if relevant else None
    if relevant and segment is None:
        raise ValueError("gt_timestamp is missing or no segment")
    stated_answer = row.get("gt_output")
    answer = stated_answer if isinstance(stated_answer, str) else ""
    stated = next((row[key] for key in DIFFICULTY_KEYS if row.get(key) is not None), None)
    categories = row.get("gt_categories") or []
    if isinstance(categories, str):
        categories = [categories]
    duration = row.get("duration")
    sample = Sample(
        id=f"{number}",
        video=row["video"],
        query=row["query"],
        task_type="answerable" if relevant else "refusable",
        segment=segment,
        duration=float(duration) if isinstance(duration, int | float) and duration > 0 else None,
        crop=None,
        gt_answer=parse(answer).answer or answer.strip(),
        contrast_answer=None,
        reference_queries=[],
        categories=[name for name in categories if isinstance(name, str)],
        difficulty=known_difficulty(stated),
        captions=[],
        source=Source(file, number, 0),
        extra={},
    )
    return Prediction(sample, row["model_output"])


def _same_query(samples: Sequence[Sample]) -> dict[tuple[str, str, str], Sample]:
    return {(base_name(sample.video), sample.query, sample.task_type): sample for sample in samples}


def read_predictions(path: Path, samples: Sequence[Sample] | None) -> tuple[list[Prediction], list[str]]:
    """Finished predictions: rows of ours, `{"id", "completion"}`, or the published inference format.

    Args:
        path: JSON list or JSON Lines.
        samples: the data that was predicted on, if at hand: rows of ids need it, and the others take references and
            durations from it.

    Returns:
        The predictions, and a line for each row that cannot be used.

    Raises:
        InputError: the file is no such thing, not a single row of it can be used, or it does not fit the data.
    """
    by_id = {sample.id: sample for sample in samples or ()}
    by_query = _same_query(samples or ())
    predictions, faults, strangers = [], [], 0
    for number, row in enumerate(_rows(path)):
        try:
            if not isinstance(row, dict):
                raise ValueError("is no object")
            if "model_output" in row:
                prediction = _published(row, number, path.name)
                known = by_query.get((base_name(row["video"]), row["query"], prediction.sample.task_type))
            elif "sample" in row:
                given = msgspec.convert(row, Prediction)
                prediction = Prediction(given.sample, given.completion)
                known = by_id.get(given.sample.id)
            else:
                if not isinstance(row.get("completion"), str) or "id" not in row:
                    raise ValueError('has neither "sample" nor "model_output" nor "id" with "completion"')
                if samples is None:
                    raise InputError(f"{_WHAT} {path}: its rows have only ids; give the data with --data")
                if (known := by_id.get(row["id"])) is None:
                    strangers += 1
                    raise ValueError(f"id {row['id']} is not in the data")
                prediction = Prediction(known, row["completion"])
        except (ValueError, msgspec.ValidationError) as error:
            faults.append(f"row {number}: {error}")
            continue
        if samples is not None and known is None:
            strangers += 1
            faults.append(f"row {number}: its query is not in the data")
            continue
        predictions.append(msgspec.structs.replace(prediction, sample=known) if known else prediction)
    if not predictions:
        reason = faults[0] if faults else "it is empty"
        what = "does not fit --data" if strangers and strangers == len(faults) else "holds no prediction"
        raise InputError(f"{_WHAT} {path}: {what} ({reason})")
    return predictions, faults
