"""Predictions: a completion per query, in the format of `rarft evaluate` and in the published inference format."""

import ast
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from rarft.annotations.encoding import replace_surrogates
from rarft.annotations.parsing import DIFFICULTY_KEYS, base_name, parse_boolean, parse_difficulty, parse_number
from rarft.annotations.reader import MalformedLine, read_items
from rarft.annotations.schema import Sample, Source, only_segment
from rarft.annotations.times import parse_segments
from rarft.completion import parse_completion
from rarft.errors import InputError
from rarft.segments import is_valid

PREDICTION_KEYS = frozenset({"model_output", "sample", "completion"})
_QueryKey = tuple[Any, ...]


class Prediction(msgspec.Struct, frozen=True):
    """A completion of one query, with its scores.

    Attributes:
        sample: The query and its ground truth.
        completion: Generated text; empty if the query was skipped.
        rewards: Rewards that training would have given, by name.
        reward_parts: Terms of the rewards that apply, by name.
        refusal_similarity: Cosine similarity of a refusal's answer and the true one; None if either is missing.
        correction_similarity: Cosine similarity of the correction and the nearest reference query; None if either is
            missing.
        categories: Mismatch categories that the refusal names, as read by the judge; None if not judged.
        consistency: How well the reasoning supports the answer, 0 to 5, as rated by the judge; None if not judged.
        refusal_score: Probability of refusing against answering (see `refusal_score.py`); None if not available.
        refusal_share: Share of refusals among the sampled completions with a readable answer; None if there are none.
        skipped: Why the video could not be read; None if the query was completed.
    """

    sample: Sample
    completion: str
    rewards: dict[str, float] = {}
    reward_parts: dict[str, float] = {}
    refusal_similarity: float | None = None
    correction_similarity: float | None = None
    categories: list[str] | None = None
    consistency: int | None = None
    refusal_score: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    refusal_share: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    skipped: str | None = None


def write_predictions(path: Path, predictions: Sequence[Prediction]) -> None:
    """Write predictions as JSON Lines."""
    path.write_bytes(b"".join(msgspec.json.encode(prediction) + b"\n" for prediction in predictions))


def _parse_categories(value: Any) -> list[str]:
    """Parse a list of names, the text of such a list, or a single name."""
    if isinstance(value, str):
        try:
            parsed = ast.literal_eval(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            parsed = value
        value = parsed if isinstance(parsed, list | tuple) else [value]
    return [name for name in value if isinstance(name, str)] if isinstance(value, list | tuple) else []


def _parse_duration(value: Any) -> float | None:
    duration = parse_number(value)
    return duration if duration and duration > 0 else None


_RELEVANCE = {"yes": True, "relevant": True, "no": False, "irrelevant": False}


def _parse_relevance(value: Any) -> bool | None:
    word = value.strip().lower() if isinstance(value, str) else None
    return _RELEVANCE[word] if word in _RELEVANCE else parse_boolean(value)


def _parse_published(row: dict[str, Any], number: int, file: str) -> Prediction:
    """Parse a row of the published inference format; raise a ValueError if a field is missing or invalid."""
    for name in ("video", "query"):
        if not isinstance(row.get(name), str):
            raise ValueError(f"{name} is missing or not text")
    output = row["model_output"]
    if not isinstance(output, str | None):
        raise ValueError("model_output is not text")
    relevant = _parse_relevance(row.get("gt_relevant"))
    if relevant is None:
        raise ValueError("gt_relevant is missing or not a Boolean")
    segments = sorted(set(parse_segments(row.get("gt_timestamp")) or [])) if relevant else []
    if relevant and not (segments and all(map(is_valid, segments))):
        raise ValueError("gt_timestamp is missing or not a segment")
    answer = replace_surrogates(row["gt_output"]) if isinstance(row.get("gt_output"), str) else ""
    sample = Sample(
        id=f"{number}",
        video=replace_surrogates(row["video"]),
        query=replace_surrogates(row["query"]).strip(),
        task_type="answerable" if relevant else "refusable",
        segments=segments,
        segment=only_segment(segments),
        duration=_parse_duration(row.get("duration")),
        crop=None,
        gt_answer=parse_completion(answer).answer or answer.strip(),
        contrast_answer=None,
        reference_queries=[],
        categories=_parse_categories(row.get("gt_categories")),
        difficulty=parse_difficulty(next((row[key] for key in DIFFICULTY_KEYS if row.get(key) is not None), None)),
        captions=[],
        source=Source(file, number, 0),
        extra={},
    )
    # A missing output counts as a completion without an answer, which is wrong.
    return Prediction(sample, replace_surrogates(output or ""))


def _key_of(sample: Sample) -> _QueryKey:
    """Return the identity of a query: queries with the same text differ in their segments."""
    return base_name(sample.video), sample.query, sample.task_type, tuple(sample.segments)


class _SampleIndex:
    """Samples of the validated data by id and by query."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.by_id = {sample.id: sample for sample in samples}
        self._by_text: dict[_QueryKey, list[Sample]] = {}
        for sample in samples:
            self._by_text.setdefault(_key_of(sample)[:3], []).append(sample)

    def find(self, sample: Sample) -> Sample | None:
        """Return the sample of the same query; if the segments differ, the only sample with the same text."""
        same_text = self._by_text.get(_key_of(sample)[:3], [])
        exact = [one for one in same_text if one.segments == sample.segments]
        return exact[-1] if exact else same_text[0] if len(same_text) == 1 else None


def _parse_row(row: Any, number: int, file: str, data: _SampleIndex | None) -> Prediction:
    """Parse a row of any format; raise a ValueError if it is not a prediction, or its query is not in the data."""
    if isinstance(row, MalformedLine):
        raise ValueError(f"not valid JSON ({row.problem})")
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    scores: dict[str, Any] = {}
    if "model_output" in row:
        given = _parse_published(row, number, file)
        sample, completion = data.find(given.sample) if data else given.sample, given.completion
    elif "sample" in row:
        given = msgspec.convert(row, Prediction)
        sample, completion = data.by_id.get(given.sample.id) if data else given.sample, given.completion
        names = ("skipped", "refusal_score", "refusal_share")
        scores = {name: getattr(given, name) for name in names}
    elif isinstance(row.get("id"), str) and isinstance(row.get("completion"), str):
        if data is None:
            raise ValueError("has only an id; pass the data, too")
        sample, completion = data.by_id.get(row["id"]), row["completion"]
    else:
        raise ValueError('needs "sample", "model_output", or "id" with "completion"')
    if sample is None:
        raise ValueError("the query is not in the data")
    return Prediction(sample, "" if scores.get("skipped") else replace_surrogates(completion), **scores)


def read_predictions(path: Path, samples: Sequence[Sample] | None) -> tuple[list[Prediction], list[str]]:
    """Read finished predictions: rows of `rarft evaluate`, of `{"id", "completion"}`, or of the published format.

    Args:
        path: JSON list or JSON Lines, plain or gzipped.
        samples: Validated data, if available. Rows of ids need it; other rows take references and durations from it.

    Returns:
        The predictions, and a description of each row that cannot be used and of each query without a prediction.

    Raises:
        InputError: The file cannot be parsed, or no row of it can be used.
    """
    data = _SampleIndex(samples) if samples is not None else None
    predictions, problems = [], []
    seen: set[str] = set()
    for number, row in enumerate(read_items(path, PREDICTION_KEYS)):
        try:
            prediction = _parse_row(row, number, path.name, data)
            if data is not None and prediction.sample.id in seen:
                raise ValueError("the query is in an earlier row")
        except ValueError as error:
            problems.append(f"row {number}: {replace_surrogates(str(error))}")
            continue
        seen.add(prediction.sample.id)
        predictions.append(prediction)
    if not predictions:
        raise InputError(f"{path}: no usable prediction ({problems[0] if problems else 'the file is empty'})")
    problems += [f"query {sample.id}: no prediction" for sample in samples or () if sample.id not in seen]
    return predictions, problems


def align(source: str, predictions: Sequence[Prediction], queries: Sequence[Sample]) -> list[Prediction]:
    """Return the predictions in the order of the queries.

    Raises:
        InputError: The predictions, from the file `source`, are not of the same queries.
    """
    by_key: dict[_QueryKey, list[Prediction]] = {}
    for prediction in reversed(predictions):
        by_key.setdefault(_key_of(prediction.sample), []).append(prediction)
    aligned = [by_key[key].pop() for sample in queries if by_key.get(key := _key_of(sample))]
    if len(aligned) < len(queries) or len(predictions) > len(queries):
        raise InputError(
            f"{source}: {len(predictions)} predictions for {len(queries)} queries, {len(queries) - len(aligned)} "
            "queries without one; pass predictions of the same queries"
        )
    return aligned
