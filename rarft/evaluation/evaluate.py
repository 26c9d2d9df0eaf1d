"""Evaluation of candidates on the same queries: predict, score, judge, compute metrics, report."""

import functools
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec

from rarft.annotations.schema import Sample
from rarft.checkpoint.source import checkpoint_fingerprint
from rarft.distributed.launch import rank_and_size
from rarft.distributed.shared_work import SharedWork, join_processes
from rarft.embeddings.encoder import DEFAULT_ENCODER, SentenceEncoder
from rarft.embeddings.store import ReferenceStore
from rarft.errors import InputError, input_name
from rarft.evaluation.bootstrap import intervals, paired
from rarft.evaluation.gates import Gate
from rarft.evaluation.generate import BACKENDS, Predictor, in_batches
from rarft.evaluation.judge import Judge
from rarft.evaluation.metrics import HEADLINE, PredictionTable, metrics_of
from rarft.evaluation.model_candidates import EVALUATED, Candidate
from rarft.evaluation.predictions import Prediction, align, read_predictions, write_predictions
from rarft.evaluation.report import METRICS_JSON, REPORT_HTML, render_report
from rarft.evaluation.score_metrics import SCORES
from rarft.evaluation.scoring import score_predictions
from rarft.models.qwen2_5_vl.load import open_checkpoint
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.reporting.training_log import read_training_log
from rarft.storage.location import Location, open_local, parse_location
from rarft.storage.s3 import ObjectNotFoundError, is_object_uri, object_version
from rarft.video.skipping import SkippedVideos

PREDICTIONS_JSONL = "predictions.jsonl"
_UNFINISHED = ".unfinished"  # folder of the completions of evaluations that are not finished
_MAX_LOGGED_PROBLEMS = 5
# Completion, why it was skipped, version of the video, refusal score, share of refusals.
_Result = tuple[str, str | None, str | None, float | None, float | None]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluationOptions:
    """Options of an evaluation.

    Attributes:
        gates: Conditions on the metrics of the first candidate.
        in_sample: Whether the first candidate was trained on these videos; None if unknown. Every figure is labeled
            if it was.
        encoder: Sentence encoder of the similarities; None for the packaged one.
        backend: Generation backend, a key of BACKENDS.
        endpoint: URL of a server that serves the first checkpoint; it completes the queries instead of a backend.
        batch_size: Prompts per batch.
        num_samples: Number of sampled completions per query, for the share of refusals.
        threshold_from: Folder of an evaluation on other data, whose best thresholds of refusal scores are used.
        max_skipped_videos: Number of videos that may be unreadable; their queries count as wrong.
        embed_clips: Number of queries of each outcome whose videos are embedded in the report in low resolution.
        judge_url: URL of an OpenAI-compatible endpoint; None for no judge.
        judge_model: Model that the endpoint serves.
        judge_cache: SQLite file of verdicts; None for the user's cache folder.
        judge_prices: US dollars per million prompt tokens and per million completion tokens, if known.
    """

    gates: Sequence[Gate] = ()
    in_sample: bool | None = None
    encoder: str | None = None
    backend: str = "transformers"
    endpoint: str | None = None
    batch_size: int = 16
    num_samples: int = 0
    threshold_from: str | None = None
    max_skipped_videos: int = 10
    embed_clips: int = 0
    judge_url: str | None = None
    judge_model: str | None = None
    judge_cache: str | None = None
    judge_prices: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise InputError(f"--backend {self.backend}: unknown; choose {' or '.join(BACKENDS)}")
        if (self.judge_url is None) != (self.judge_model is None):
            raise InputError("--judge-url, --judge-model: only one is given; pass both")


def evaluate(
    candidates: Sequence[Candidate], samples: Sequence[Sample] | None, out: Location, options: EvaluationOptions
) -> dict[str, Any]:
    """Evaluate candidates and write predictions.jsonl, report.html and, last, metrics.json into `out`.

    The processes that torchrun started share the generation; the main process does the rest. A killed evaluation
    resumes where it stopped.

    Args:
        candidates: The candidate to evaluate, then the reference, then others.
        samples: Validated data; None if every candidate is finished predictions.

    Returns:
        The content of metrics.json; an empty dict on the other processes.

    Raises:
        InputError: Data, predictions, a checkpoint or the judge cannot be used.
    """
    if samples is None and any(candidate.is_checkpoint for candidate in candidates):
        raise InputError("the data is missing; pass the riq.jsonl that `rarft validate` wrote")
    join_processes()
    # Whatever can fail quickly comes before the generation.
    predictions, unusable, queries = _read_finished(candidates, samples)
    thresholds = _read_thresholds(candidates, predictions, options)
    with input_name("--encoder"):
        store = ReferenceStore(SentenceEncoder(options.encoder or DEFAULT_ENCODER))
    judge = None
    if options.judge_url is not None:
        judge = Judge(options.judge_url, str(options.judge_model), options.judge_cache)
        judge.check()
    _generate_missing(candidates, predictions, queries, options, out)
    if rank_and_size()[0]:
        return {}
    tables = {}
    for candidate in candidates:
        rows = score_predictions(predictions[candidate.name], store)
        tables[candidate.name] = PredictionTable(
            _judge(judge, rows) if judge else rows, thresholds.get(candidate.name, {})
        )
        if skipped := sum(row.skipped is not None for row in rows):
            logger.warning(
                "%s: %d of %d queries skipped, because their videos cannot be read; they count as wrong",
                candidate.source, skipped, len(rows),
            )  # fmt: skip
    metrics = _summarize(candidates, tables, unusable, options.in_sample)
    metrics["threshold_from"] = options.threshold_from
    metrics["judge"] = _summarize_judge(judge, tables[EVALUATED], options) if judge else None
    metrics |= _check_gates(options.gates, metrics)
    training = read_training_log(candidates[0].source) if candidates[0].is_checkpoint else []
    files = {_predictions_file(name): table.predictions for name, table in tables.items()}
    page = render_report(metrics, tables, training, out, options.embed_clips)
    with out.write_files(METRICS_JSON, sorted(_earlier_predictions(out) - files.keys())) as folder:
        for name, written in files.items():
            write_predictions(folder / name, written)
        (folder / REPORT_HTML).write_text(page, encoding="utf-8")
        (folder / METRICS_JSON).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    out.child(_UNFINISHED).remove()
    return metrics


def _predictions_file(name: str) -> str:
    return PREDICTIONS_JSONL if name == EVALUATED else f"{name}-{PREDICTIONS_JSONL}"


def _earlier_predictions(out: Location) -> set[str]:
    """Return the files of predictions that an earlier evaluation wrote into the folder."""
    try:
        metrics = json.loads(out.read(METRICS_JSON))
        names = [*metrics["others"], *([metrics["base"]["name"]] if metrics["base"] else [])]
    except (InputError, ValueError, LookupError, TypeError):
        return set()
    return {_predictions_file(name) for name in names}


def _read_finished(
    candidates: Sequence[Candidate], samples: Sequence[Sample] | None
) -> tuple[dict[str, list[Prediction]], dict[str, int], Sequence[Sample]]:
    """Read the candidates that are finished predictions.

    Returns:
        Predictions by candidate, the number of rows and queries left out of each, and the queries of the evaluation:
        those of the first candidate. All predictions are in the order of the queries.
    """
    predictions, unusable = {}, {}
    queries = samples if candidates[0].is_checkpoint else None
    for candidate in candidates:
        if candidate.is_checkpoint:
            continue
        with input_name(candidate.flag), open_local(candidate.source) as file:
            rows, problems = read_predictions(file, samples)
            for problem in problems[:_MAX_LOGGED_PROBLEMS]:
                logger.warning("%s: %s", candidate.source, problem)
            if problems:
                logger.warning("%s: %d rows or queries are left out", candidate.source, len(problems))
            queries = queries or [row.sample for row in rows]
            predictions[candidate.name] = align(candidate.source, rows, queries)
        unusable[candidate.name] = len(problems)
    return predictions, unusable, queries or []


def _read_thresholds(
    candidates: Sequence[Candidate], predictions: Mapping[str, Sequence[Prediction]], options: EvaluationOptions
) -> dict[str, dict[str, float]]:
    """Return the thresholds of `--threshold-from` by candidate and score; empty without it.

    Raises:
        InputError: The evaluation cannot be read, or has no threshold for a score of this evaluation.
    """
    if options.threshold_from is None:
        return {}
    found: dict[str, dict[str, float]] = {}
    with input_name("--threshold-from"):
        folder = options.threshold_from
        try:
            metrics = json.loads(parse_location(folder).read(METRICS_JSON))
            base = metrics["base"]
            known = {EVALUATED: metrics, **({base["name"]: base} if base else {}), **metrics["others"]}
        except (ValueError, LookupError, TypeError) as error:
            raise InputError(
                f"{folder}: {METRICS_JSON} was not written by `rarft evaluate`; check the path"
            ) from error
        for candidate in candidates:
            rows = predictions.get(candidate.name, ())
            generated = {"refusal_score": candidate.is_checkpoint, "refusal_share": options.num_samples > 0}
            for name in SCORES:
                is_used = (
                    generated[name] if candidate.is_checkpoint else any(getattr(row, name) is not None for row in rows)
                )
                value = known.get(candidate.name, {}).get(name, {}).get("best_threshold")
                if is_used and value is None:
                    raise InputError(f"{folder}: has no {name}.best_threshold of {candidate.name}; evaluate it there")
                if is_used:
                    found.setdefault(candidate.name, {})[name] = value
    return found


def _generate_missing(
    candidates: Sequence[Candidate],
    predictions: dict[str, list[Prediction]],
    queries: Sequence[Sample],
    options: EvaluationOptions,
    out: Location,
) -> None:
    """Add the predictions of every checkpoint. All checkpoints read prompts as the first one does."""
    prompt_config = None
    skipped_videos = SkippedVideos(options.max_skipped_videos, "--max-skipped-videos")
    for candidate in candidates:
        if not candidate.is_checkpoint:
            continue
        with input_name(candidate.flag), open_checkpoint(candidate.source) as path:
            prompt_config = prompt_config or PromptConfig.load(path)
            rows = _generate(candidate, path, prompt_config, queries, options, out, skipped_videos)
        predictions[candidate.name] = rows


def _generate(
    candidate: Candidate,
    path: str,
    prompt_config: PromptConfig,
    queries: Sequence[Sample],
    options: EvaluationOptions,
    out: Location,
    skipped_videos: SkippedVideos,
) -> list[Prediction]:
    """Complete the queries with the checkpoint at `path`; all processes share the batches.

    A batch is repeated if one of its videos has changed since.
    """
    inputs = [(sample.id, sample.video, sample.query, sample.duration, sample.crop) for sample in queries]
    endpoint = options.endpoint if candidate.name == EVALUATED else None
    content = checkpoint_fingerprint(candidate.source)
    backend = endpoint or options.backend
    resume_key = [
        candidate.source,
        content,
        asdict(prompt_config),
        inputs,
        backend,
        options.batch_size,
        options.num_samples,
    ]
    batches = in_batches(queries, options.batch_size)
    # Loaded when there is a batch to complete.
    predictor = functools.cache(lambda: Predictor(path, prompt_config, options.backend, queries, endpoint))

    def predict(batch: list[int]) -> list[_Result]:
        samples = [queries[index] for index in batch]
        rows = predictor().predict(samples, with_score=True, num_samples=options.num_samples)
        skipped_videos.update({row.sample.video: row.skipped for row in rows if row.skipped is not None})
        return [
            (
                row.completion,
                row.skipped,
                _video_version(row.sample.video, row.skipped),
                row.refusal_score,
                row.refusal_share,
            )
            for row in rows
        ]

    def is_current(batch: list[int], results: list[_Result]) -> bool:
        rows = zip(batch, results, strict=True)
        return all(
            version == _video_version(queries[index].video, skipped) for index, (_, skipped, version, *_) in rows
        )

    work = SharedWork(out.child(_UNFINISHED), resume_key)
    results = work.run(batches, predict, f"evaluating {candidate.name}", is_current)
    found = dict(zip(chain.from_iterable(batches), chain.from_iterable(results), strict=True))
    rows = []
    for index, sample in enumerate(queries):
        completion, skipped, _, score, share = found[index]
        rows.append(Prediction(sample, completion, skipped=skipped, refusal_score=score, refusal_share=share))
    # Those of other processes, and of an evaluation that was resumed.
    skipped_videos.update({row.sample.video: row.skipped for row in rows if row.skipped is not None}, is_logged=False)
    return rows


def _video_version(video: str, skipped: str | None) -> str | None:
    """Return a text that changes when a video does; None for a missing one, and for an object that could be read."""
    if is_object_uri(video):
        try:
            return object_version(video) if skipped is not None else None
        except ObjectNotFoundError:
            return None
    path = Path(video)
    return f"{path.stat().st_size} {path.stat().st_mtime_ns}" if path.is_file() else None


def _judge(judge: Judge, predictions: Sequence[Prediction]) -> list[Prediction]:
    """Return the predictions with verdicts. A skipped one is not judged, and names no category."""
    judged = iter(judge.judge([row for row in predictions if row.skipped is None]))
    return [
        next(judged)
        if row.skipped is None
        else msgspec.structs.replace(row, categories=[] if row.sample.task_type == "refusable" else None)
        for row in predictions
    ]


def _summarize(
    candidates: Sequence[Candidate],
    tables: Mapping[str, PredictionTable],
    unusable: Mapping[str, int],
    in_sample: bool | None,
) -> dict[str, Any]:
    """Return the metrics of all candidates, in the form of metrics.json."""
    figures = {
        one.name: {
            "checkpoint": Path(one.source).name,
            **metrics_of(tables[one.name]),
            "intervals": intervals(tables[one.name]),
        }
        for one in candidates
    }
    base = candidates[1].name if len(candidates) > 1 else None
    return {
        "evaluated": candidates[0].source,
        "in_sample": in_sample,
        **figures[EVALUATED],
        "base": {"name": base, **figures[base]} if base else None,
        "comparison": paired(tables[EVALUATED], tables[base], list(HEADLINE.values())) if base else None,
        "others": {one.name: figures[one.name] for one in candidates[2:]},
        "unusable_rows": unusable.get(EVALUATED, 0),
        "unusable_rows_of_base": unusable.get(base, 0) if base else 0,
    }


def _check_gates(gates: Sequence[Gate], metrics: dict[str, Any]) -> dict[str, Any]:
    reasons = {gate.text: gate.failure_reason(metrics) for gate in gates}
    return {
        "gates": [{"gate": text, "passed": reason is None, "reason": reason} for text, reason in reasons.items()],
        "passed": not any(reasons.values()),
    }


def _summarize_judge(judge: Judge, table: PredictionTable, options: EvaluationOptions) -> dict[str, Any]:
    """Log and return what judging took."""
    counts, cost = judge.counts, judge.counts.cost(options.judge_prices)
    if judge.failure:
        logger.warning("judge: first failure: %s", judge.failure)
    logger.info(
        "judge: %d replies, %d from the cache, %d failed, %d tokens%s",
        counts.asked,
        counts.cached,
        counts.failed,
        counts.prompt_tokens + counts.completion_tokens,
        "" if cost is None else f", {cost:.2f} US dollars",
    )
    unjudged = sum(row.consistency is None and row.skipped is None for row in table.predictions)
    return {**asdict(counts), "unjudged_of_checkpoint": unjudged, "dollars": cost}
