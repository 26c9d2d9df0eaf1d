"""Predictions: what a checkpoint said to each query, as we write them and as others do."""

import ast
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from rarft.annotations.parsing import DIFFICULTY_KEYS, base_name, parse_boolean, parse_difficulty
from rarft.annotations.schema import Sample, Source
from rarft.completion import find_segment, parse_completion
from rarft.errors import InputError
from rarft.segments import Segment, is_valid


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


def _rows(path: Path, what: str) -> list[Any]:
    """The rows of a JSON list or of JSON Lines."""
    content = path.read_bytes()
    try:
        if content.lstrip()[:1] == b"[":
            return list(json.loads(content))
        return [json.loads(line) for line in content.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} {path}: is neither a JSON list nor JSON Lines ({error})") from error


def _unicode(text: str) -> str:
    """Text that can be written: half a surrogate pair, which JSON lets through, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _segment(value: Any) -> Segment | None:
    """Two numbers, as a list or as text such as `10.0 to 20.0` or `[10, 20]`; None for what is neither."""
    if isinstance(value, str):
        if (said := find_segment(value)) is None:
            try:
                value = json.loads(value)
            except ValueError:
                return None
        else:
            value = said
    if not isinstance(value, list | tuple) or len(value) != 2:
        return None
    try:
        segment = (float(value[0]), float(value[1]))
    except (TypeError, ValueError, OverflowError):
        return None
    return segment if is_valid(segment) else None


def _categories(value: Any) -> list[str]:
    """Names, as a list, as a list's text, or as a single name."""
    if isinstance(value, str):
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            parsed = value
        value = parsed if isinstance(parsed, list | tuple) else [value]
    return [name for name in value or [] if isinstance(name, str)] if isinstance(value, list | tuple) else []


def _duration(value: Any) -> float | None:
    try:
        duration = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return duration if math.isfinite(duration) and duration > 0 else None


_TRUTHS = {"yes": True, "relevant": True, "no": False, "irrelevant": False}


def _relevant(value: Any) -> bool | None:
    word = value.strip().lower() if isinstance(value, str) else None
    return _TRUTHS[word] if word in _TRUTHS else parse_boolean(value)


def _published(row: dict[str, Any], number: int, file: str) -> Prediction:
    """A row of the published inference format.

    Raises:
        ValueError: a field is missing or is not what it must be; the message names it.
    """
    for name in ("video", "query"):
        if not isinstance(row.get(name), str):
            raise ValueError(f"{name} is missing or no text")
    output = row["model_output"]
    if not isinstance(output, str | None):
        raise ValueError("model_output is no text")
    relevant = _relevant(row.get("gt_relevant"))
    if relevant is None:
        raise ValueError("gt_relevant is missing or no truth value")
    segment = _segment(row.get("gt_timestamp")) if relevant else None
    if relevant and segment is None:
        raise ValueError("gt_timestamp is missing or no segment")
    stated_answer = row.get("gt_output")
    answer = _unicode(stated_answer) if isinstance(stated_answer, str) else ""
    sample = Sample(
        id=f"{number}",
        video=_unicode(row["video"]),
        query=_unicode(row["query"]).strip(),
        task_type="answerable" if relevant else "refusable",
        segment=segment,
        duration=_duration(row.get("duration")),
        crop=None,
        gt_answer=parse_completion(answer).answer or answer.strip(),
        contrast_answer=None,
        reference_queries=[],
        categories=_categories(row.get("gt_categories")),
        difficulty=parse_difficulty(next((row[key] for key in DIFFICULTY_KEYS if row.get(key) is not None), None)),
        captions=[],
        source=Source(file, number, 0),
        extra={},
    )
    # No output is a completion without an answer: wrong, and not to be left out.
    return Prediction(sample, _unicode(output or ""))


QueryKey = tuple[str, str, str, Segment | None]


def key_of(sample: Sample) -> QueryKey:
    """What is asked: of two queries of the same words the segment tells which."""
    return base_name(sample.video), sample.query, sample.task_type, sample.segment


class _Data:
    """The data that was predicted on, found by id or by what is asked."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.by_id = {sample.id: sample for sample in samples}
        self._by_key = {key_of(sample): sample for sample in samples}
        self._by_words: dict[tuple[str, str, str], list[Sample]] = {}
        for sample in samples:
            self._by_words.setdefault(key_of(sample)[:3], []).append(sample)

    def find(self, sample: Sample) -> Sample | None:
        """The sample that is asked; where its segment differs, the only one of its words."""
        if (found := self._by_key.get(key_of(sample))) is not None:
            return found
        candidates = self._by_words.get(key_of(sample)[:3], [])
        return candidates[0] if len(candidates) == 1 else None


def _read(row: Any, number: int, file: str, data: _Data | None) -> Prediction:
    """One row.

    Raises:
        ValueError: it is no prediction, or not one of the data.
    """
    if not isinstance(row, dict):
        raise ValueError("is no object")
    if "model_output" in row:
        prediction = _published(row, number, file)
        known = data.find(prediction.sample) if data else None
    elif "sample" in row:
        given = msgspec.convert(row, Prediction)
        prediction = Prediction(given.sample, _unicode(given.completion))
        known = data.by_id.get(given.sample.id) if data else None
    else:
        if not isinstance(row.get("completion"), str) or not isinstance(row.get("id"), str):
            raise ValueError('has neither "sample" nor "model_output" nor "id" with "completion"')
        if data is None:
            raise ValueError("has only an id; give the data with --data")
        known = data.by_id.get(row["id"])
        if known is not None:
            prediction = Prediction(known, _unicode(row["completion"]))
    if data is None:
        return prediction
    if known is None:
        raise ValueError("its query is not in the data")
    return msgspec.structs.replace(prediction, sample=known)


def read_predictions(
    path: Path, samples: Sequence[Sample] | None, what: str = "--predictions"
) -> tuple[list[Prediction], list[str]]:
    """Finished predictions: rows of ours, `{"id", "completion"}`, or the published inference format.

    Args:
        path: JSON list or JSON Lines.
        samples: the data that was predicted on, if at hand: rows of ids need it, and the others take references and
            durations from it.
        what: the flag that named the file, for messages.

    Returns:
        The predictions, and a line for each row that cannot be used, and for each query of the data without one.

    Raises:
        InputError: the file is no such thing, or not a single row of it can be used.
    """
    data = _Data(samples) if samples is not None else None
    predictions, faults = [], []
    seen: set[str] = set()
    for number, row in enumerate(_rows(path, what)):
        try:
            prediction = _read(row, number, path.name, data)
            if data is not None and prediction.sample.id in seen:
                raise ValueError("its query stands in an earlier row")
        except (ValueError, msgspec.ValidationError) as error:
            faults.append(f"row {number}: {_unicode(str(error))}")
            continue
        seen.add(prediction.sample.id)
        predictions.append(prediction)
    if not predictions:
        raise InputError(
            f"{what} {path}: holds no prediction that can be used ({faults[0] if faults else 'it is empty'})"
        )
    faults += [
        f"query {sample.id} of the data: has no prediction" for sample in samples or () if sample.id not in seen
    ]
    return predictions, faults
