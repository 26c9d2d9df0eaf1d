"""Evaluation of candidates on the same queries: predict, score, judge, compute metrics, report."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rarft.annotations.schema import Sample
from rarft.checkpoint.locate import checkpoint_fingerprint
from rarft.distributed.launch import rank_and_size
from rarft.distributed.shared_work import SharedWork, join_processes
from rarft.embeddings.encoder import SentenceEncoder
from rarft.embeddings.store import ReferenceStore
from rarft.errors import InputError, input_name
from rarft.evaluation.bootstrap import intervals, paired
from rarft.evaluation.candidates import EVALUATED, Candidate, align
from rarft.evaluation.gates import Gate
from rarft.evaluation.generate import BACKENDS, Predictor, in_batches
from rarft.evaluation.judge import Judge
from rarft.evaluation.metrics import HEADLINE, PredictionTable, metrics_of
from rarft.evaluation.predictions import Prediction, read_predictions, write_predictions
from rarft.evaluation.report import METRICS_JSON, REPORT_HTML, render_report
from rarft.evaluation.scoring import score_predictions
from rarft.models.qwen2_5_vl.load import open_checkpoint
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.reporting.training_log import read_training_log
from rarft.storage.location import Location, open_local

PREDICTIONS_JSONL = "predictions.jsonl"
_UNFINISHED = ".unfinished"  # folder of the completions of an evaluation that is not finished
_MAX_LOGGED_PROBLEMS = 5
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
        batch_size: Prompts per batch.
        judge_url: URL of an OpenAI-compatible endpoint; None for no judge.
        judge_model: Model that the endpoint serves.
        judge_cache: SQLite file of verdicts; None for the user's cache folder.
        judge_prices: US dollars per million prompt tokens and per million completion tokens, if known.

    Raises:
        InputError: The backend is unknown, or only one of `judge_url` and `judge_model` is given.
    """

    gates: Sequence[Gate] = ()
    in_sample: bool | None = None
    encoder: str | None = None
    backend: str = "transformers"
    batch_size: int = 16
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
        out: Folder to write into.
        options: Options.

    Returns:
        The content of metrics.json; an empty dict on the other processes.

    Raises:
        InputError: Data, predictions, a checkpoint or the judge cannot be used.
    """
    if samples is None and any(candidate.is_checkpoint for candidate in candidates):
        raise InputError("the data is missing; pass the riq.jsonl that `rarft validate` wrote")
    join_processes()
    # Whatever can fail quickly comes before the generation.
    predictions, unusable = _read_finished(candidates, samples)
    queries = _align(candidates, predictions, samples)
    with input_name("--encoder"):
        store = ReferenceStore.empty(SentenceEncoder(options.encoder) if options.encoder else SentenceEncoder())
    judge = _connect_judge(options)
    works = _generate_missing(candidates, predictions, queries, options, out)
    if rank_and_size()[0]:
        return {}
    tables = {}
    for candidate in candidates:
        rows = score_predictions(predictions[candidate.name], store)
        tables[candidate.name] = PredictionTable(judge.judge(rows) if judge else rows)
    metrics = _summarize(candidates, tables, unusable, options.in_sample)
    metrics["judge"] = _summarize_judge(judge, tables[EVALUATED], options) if judge else None
    metrics |= _check_gates(options.gates, metrics)
    training = read_training_log(candidates[0].source) if candidates[0].is_checkpoint else []
    files = {_predictions_file(name): table.predictions for name, table in tables.items()}
    with out.write_files(METRICS_JSON, sorted(_earlier_predictions(out) - files.keys())) as folder:
        for name, written in files.items():
            write_predictions(folder / name, written)
        (folder / REPORT_HTML).write_text(render_report(metrics, tables, training), encoding="utf-8")
        (folder / METRICS_JSON).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    for work in works:
        work.delete()
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
) -> tuple[dict[str, list[Prediction]], dict[str, int]]:
    """Read the candidates that are finished predictions.

    Returns:
        Predictions of these, and the number of rows and queries left out of every candidate, by name.
    """
    predictions: dict[str, list[Prediction]] = {}
    unusable = dict.fromkeys((candidate.name for candidate in candidates), 0)
    for candidate in candidates:
        if candidate.is_checkpoint:
            continue
        with input_name(candidate.flag), open_local(candidate.source) as file:
            predictions[candidate.name], problems = read_predictions(file, samples)
        for problem in problems[:_MAX_LOGGED_PROBLEMS]:
            logger.warning("%s: %s", candidate.source, problem)
        if problems:
            logger.warning("%s: %d rows or queries are left out", candidate.source, len(problems))
        unusable[candidate.name] = len(problems)
    return predictions, unusable


def _align(
    candidates: Sequence[Candidate], predictions: dict[str, list[Prediction]], samples: Sequence[Sample] | None
) -> list[Sample]:
    """Return the queries of the evaluation, those of the first candidate; bring all predictions into their order."""
    finished = predictions.get(EVALUATED)
    queries = list(samples or []) if finished is None else [row.sample for row in finished]
    for candidate in candidates:
        if not candidate.is_checkpoint:
            with input_name(candidate.flag):
                predictions[candidate.name] = align(candidate.source, predictions[candidate.name], queries)
    return queries


def _connect_judge(options: EvaluationOptions) -> Judge | None:
    if options.judge_url is None:
        return None
    cache = Path(options.judge_cache) if options.judge_cache else None
    judge = Judge(options.judge_url, str(options.judge_model), cache)
    judge.check()
    return judge


def _generate_missing(
    candidates: Sequence[Candidate],
    predictions: dict[str, list[Prediction]],
    queries: Sequence[Sample],
    options: EvaluationOptions,
    out: Location,
) -> list[SharedWork]:
    """Add the predictions of every checkpoint; return the work that keeps their completions until the end.

    All checkpoints read prompts as the first one does.
    """
    works = []
    prompt_config = None
    for candidate in candidates:
        if not candidate.is_checkpoint:
            continue
        with input_name(candidate.flag), open_checkpoint(candidate.source) as path:
            prompt_config = prompt_config or PromptConfig.load(path)
            predictions[candidate.name], work = _generate(candidate, path, prompt_config, queries, options, out)
        works.append(work)
    return works


def _generate(
    candidate: Candidate,
    path: str,
    prompt_config: PromptConfig,
    queries: Sequence[Sample],
    options: EvaluationOptions,
    out: Location,
) -> tuple[list[Prediction], SharedWork]:
    """Complete the queries by a checkpoint; all processes share the batches, and none is completed twice.

    Args:
        candidate: The checkpoint.
        path: Local folder or Hub name of the checkpoint.
        prompt_config: How prompts are read.
        queries: Samples to complete.
        options: Options.
        out: Folder of the evaluation; completed batches are kept in it.
    """
    inputs = [
        (sample.id, sample.video, sample.query, sample.duration, sample.crop, _file_version(sample.video))
        for sample in queries
    ]
    content = checkpoint_fingerprint(candidate.source)
    resume_key = [candidate.source, content, asdict(prompt_config), inputs, options.backend, options.batch_size]
    work = SharedWork(out.child(_UNFINISHED), resume_key)
    batches = in_batches(queries, options.batch_size)
    predictor: Predictor | None = None  # loaded when there is a batch to complete

    def predict(batch: list[int]) -> list[str]:
        nonlocal predictor
        predictor = predictor or Predictor(path, prompt_config, options.backend, queries)
        return predictor.predict([queries[index] for index in batch])

    completions = work.run(batches, predict, f"evaluating {candidate.name}")
    texts = {
        index: text
        for batch, completed in zip(batches, completions, strict=True)
        for index, text in zip(batch, completed, strict=True)
    }
    return [Prediction(sample, texts[index]) for index, sample in enumerate(queries)], work


def _file_version(video: str) -> tuple[int, int] | None:
    """Return what changes when a local video file does."""
    path = Path(video)
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None


def _summarize(
    candidates: Sequence[Candidate],
    tables: Mapping[str, PredictionTable],
    unusable: Mapping[str, int],
    in_sample: bool | None,
) -> dict[str, Any]:
    """Return the metrics of all candidates, in the form of metrics.json."""
    figures = [
        {"checkpoint": Path(one.source).name, **metrics_of(tables[one.name]), "intervals": intervals(tables[one.name])}
        for one in candidates
    ]
    names = [candidate.name for candidate in candidates]
    with_base = len(candidates) > 1
    return {
        "evaluated": candidates[0].source,
        "in_sample": in_sample,
        **figures[0],
        "base": {"name": names[1], **figures[1]} if with_base else None,
        "comparison": paired(tables[names[0]], tables[names[1]], list(HEADLINE.values())) if with_base else None,
        "others": dict(zip(names[2:], figures[2:], strict=True)),
        "unusable_rows": unusable[names[0]],
        "unusable_rows_of_base": unusable[names[1]] if with_base else 0,
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
    unjudged = sum(row.consistency is None for row in table.predictions)
    return {**asdict(counts), "unjudged_of_checkpoint": unjudged, "dollars": cost}
