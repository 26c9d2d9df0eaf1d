"""Evaluation of a checkpoint, or of finished predictions; alone, or beside the ones that it is compared with."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rarft.annotations.schema import Sample, read_samples
from rarft.checkpoint.locate import check_checkpoint, checkpoint_fingerprint
from rarft.distributed.shared_work import SharedWork, join_processes, rank_and_size
from rarft.embeddings.encoder import SentenceEncoder
from rarft.embeddings.store import ReferenceStore
from rarft.errors import InputError, input_name
from rarft.evaluation.bootstrap import intervals, paired
from rarft.evaluation.categories import with_rules
from rarft.evaluation.gates import Gate, parse_gate
from rarft.evaluation.generate import BACKENDS, Predictor, in_batches
from rarft.evaluation.judge import Judge
from rarft.evaluation.metrics import HEADLINE, PredictionTable, compute_metrics, metrics_of
from rarft.evaluation.predictions import Prediction, QueryKey, key_of, read_predictions, write_predictions
from rarft.evaluation.report import METRICS_JSON, REPORT_HTML, render_report
from rarft.evaluation.scoring import scored
from rarft.models.qwen2_5_vl.load import open_checkpoint
from rarft.models.qwen2_5_vl.prompt_config import PromptConfig
from rarft.reporting.training_log import training_of
from rarft.storage.files import Location, join_path, make_folder, open_local, write_files
from rarft.storage.location import parse_location

PREDICTIONS_JSONL = "predictions.jsonl"
# Of the flag that names a checkpoint, what it is to the evaluation.
_ROLES = {"--checkpoint": "checkpoint", "--base": "base", "--also-evaluate": "third checkpoint"}
_UNFINISHED = ".unfinished"  # folder of completions of an evaluation that is not done


@dataclass(frozen=True)
class EvaluationSettings:
    """What is evaluated, and how.

    Attributes:
        checkpoint: a folder, a hub name, a URI or a packaged model; None where `predictions` are given.
        predictions: finished predictions; None where a checkpoint is given.
        data: riq.jsonl, or the folder that holds it; predictions may do without.
        base: a checkpoint to compare with; it reads prompts as `checkpoint` does.
        base_predictions: finished predictions to compare with.
        also_evaluate: a third checkpoint to show beside both; it reads prompts as `checkpoint` does, too.
        encoder: sentence encoder of the similarities; None for the packaged one.
        in_sample: whether the checkpoint was trained on these videos, where that is known; every figure is
            labelled if it was.
        backend: what completes: transformers or vllm.
        batch_size: prompts per batch.
        categories: rules, to read mismatch categories by rules; None to leave that to the judge, or out.
        judge_url: of an OpenAI-compatible endpoint; None for no judge.
        judge_model: that it serves.
        judge_cache: SQLite file of verdicts; None for the user's cache folder.
        judge_prices: US dollars per million tokens of prompt and of completion, where known.
        gates: what the checkpoint must reach.
    """

    checkpoint: str | None
    data: str | None
    predictions: str | None = None
    base: str | None = None
    base_predictions: str | None = None
    also_evaluate: str | None = None
    encoder: str | None = None
    in_sample: bool | None = None
    backend: str = "transformers"
    batch_size: int = 16
    categories: str | None = None
    judge_url: str | None = None
    judge_model: str | None = None
    judge_cache: str | None = None
    judge_prices: tuple[float, float] | None = None
    gates: Sequence[str] = field(default_factory=tuple)


def _version(video: str) -> Any:
    """What changes when a video's file does."""
    path = Path(video)
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None


def _completed(
    checkpoint: str, path: str, what: str, samples: Sequence[Sample], reading: PromptConfig,
    settings: EvaluationSettings, out: Location,
) -> tuple[list[Prediction], SharedWork]:  # fmt: skip
    """Predictions of a checkpoint, which lies at `path`, done by all processes together; none is done twice."""
    held = checkpoint_fingerprint(checkpoint, what)
    queries = [
        (sample.id, sample.video, sample.query, sample.duration, sample.crop, _version(sample.video))
        for sample in samples
    ]
    identity = [checkpoint, held, asdict(reading), queries, settings.backend, settings.batch_size]
    work = SharedWork(parse_location(join_path(out, _UNFINISHED)), identity)
    batches = in_batches(samples, settings.batch_size)
    predictor: list[Predictor] = []  # loaded when there is something to do

    def complete(batch: list[int]) -> list[str]:
        if not predictor:
            predictor.append(Predictor(path, reading, what, settings.backend, samples))
        return predictor[0].complete([samples[index] for index in batch])

    completions = work.run(batches, complete, f"evaluating {_ROLES[what]}")
    said: dict[int, str] = {}
    for batch, texts in zip(batches, completions, strict=True):
        said.update(zip(batch, texts, strict=True))
    return [Prediction(sample, said[index]) for index, sample in enumerate(samples)], work


def _finished(path: str, what: str, samples: Sequence[Sample] | None) -> tuple[list[Prediction], int]:
    """Predictions of a file, and how many rows of it cannot be used; those are told."""
    with open_local(path, what) as file:
        predictions, unusable = read_predictions(file, samples, what)
    for line in unusable[:5]:
        print(f"{what} {path}: {line}", flush=True)
    if unusable:
        print(f"{what} {path}: {len(unusable)} rows or queries left out", flush=True)
    return predictions, len(unusable)


def _aligned(base: list[Prediction], predictions: Sequence[Prediction]) -> list[Prediction]:
    """The base's predictions in the order of the others.

    Raises:
        InputError: they are not of the same queries.
    """
    by_key: dict[QueryKey, list[Prediction]] = {}
    for row in reversed(base):
        by_key.setdefault(key_of(row.sample), []).append(row)
    found = [by_key[key].pop() if by_key.get(key := key_of(row.sample)) else None for row in predictions]
    aligned = [row for row in found if row is not None]
    if len(aligned) < len(predictions) or len(base) > len(predictions):
        raise InputError(
            f"--base-predictions: {len(base)} predictions beside {len(predictions)}, "
            f"{len(predictions) - len(aligned)} queries without one; give predictions of the same queries"
        )
    return aligned


def _check(settings: EvaluationSettings) -> list[Gate]:
    """Tell of settings that do not go together, before anything is loaded; the gates.

    Raises:
        InputError: the first of them.
    """
    if (settings.checkpoint is None) == (settings.predictions is None):
        raise InputError("give either --checkpoint or --predictions")
    if settings.checkpoint is not None:
        if settings.data is None:
            raise InputError("--data is missing; give the riq.jsonl of `rarft validate`")
        check_checkpoint(settings.checkpoint, "--checkpoint")
    if settings.base:
        if settings.checkpoint is None:
            raise InputError("--base goes with --checkpoint; beside --predictions give --base-predictions")
        check_checkpoint(settings.base, "--base")
    if settings.also_evaluate:
        if settings.checkpoint is None:
            raise InputError("--also-evaluate goes with --checkpoint; finished predictions have --base-predictions")
        check_checkpoint(settings.also_evaluate, "--also-evaluate")
    if settings.base and settings.base_predictions:
        raise InputError("give either --base or --base-predictions")
    if (settings.judge_url is None) != (settings.judge_model is None):
        raise InputError("--judge-url and --judge-model go together")
    if settings.judge_url and settings.categories:
        raise InputError("--categories rules: the judge reads categories, too; leave one of them out")
    if settings.backend not in BACKENDS:
        raise InputError(f"--backend {settings.backend}: no such backend; choose {' or '.join(BACKENDS)}")
    with_base = bool(settings.base or settings.base_predictions)
    known = compute_metrics([])
    return [parse_gate(text, with_base, known) for text in settings.gates]


def evaluate(settings: EvaluationSettings, out: Location) -> dict[str, Any]:
    """Evaluate into `out`: predictions.jsonl, report.html and, last, metrics.json.

    Processes that torchrun started share the completions; the first of them does the rest. A killed evaluation goes on
    where it stopped.

    Returns:
        What metrics.json holds; nothing on the other processes.

    Raises:
        InputError: data, predictions, checkpoint or judge that cannot be used.
    """
    gates = _check(settings)
    with input_name("--data"):
        samples = read_samples(settings.data) if settings.data else None
    make_folder(out)
    join_processes()
    works: list[SharedWork] = []
    base_rows: list[Prediction] = []
    third_rows: list[Prediction] = []
    finished_base: list[Prediction] = []
    unusable = base_unusable = 0
    # What can be wrong with these is told before the completions take their time.
    if settings.base_predictions:
        finished_base, base_unusable = _finished(settings.base_predictions, "--base-predictions", samples)
    store = ReferenceStore.empty(SentenceEncoder(settings.encoder) if settings.encoder else SentenceEncoder())
    judge = None
    if settings.judge_url is not None:
        cache = Path(settings.judge_cache) if settings.judge_cache else None
        judge = Judge(settings.judge_url, str(settings.judge_model), cache)
        judge.check()
    with ExitStack() as files:
        reading = None
        checkpoint = settings.checkpoint
        if checkpoint is not None:
            with input_name("--checkpoint"):
                path = files.enter_context(open_checkpoint(checkpoint))
            reading = PromptConfig.load(path)
        if checkpoint is not None and reading is not None:
            asked = (samples or [], reading, settings, out)
            if settings.base:
                with ExitStack() as opened:
                    with input_name("--base"):
                        other = opened.enter_context(open_checkpoint(settings.base))
                    base_rows, work = _completed(settings.base, other, "--base", *asked)
                works.append(work)
            if settings.also_evaluate:
                with ExitStack() as opened:
                    with input_name("--also-evaluate"):
                        other = opened.enter_context(open_checkpoint(settings.also_evaluate))
                    third_rows, work = _completed(settings.also_evaluate, other, "--also-evaluate", *asked)
                works.append(work)
            rows, work = _completed(checkpoint, path, "--checkpoint", *asked)
            works.append(work)
        else:
            rows, unusable = _finished(str(settings.predictions), "--predictions", samples)
    if rank_and_size()[0]:
        return {}
    if finished_base:
        base_rows = _aligned(finished_base, rows)
    training = training_of(settings.checkpoint, "--checkpoint") if settings.checkpoint else []
    (rows, base_rows, third_rows), judged = _judged(settings, [rows, base_rows, third_rows], store, judge)
    metrics, tables = _metrics(settings, rows, base_rows, third_rows)
    metrics |= {"judge": judged, "unusable_rows": unusable, "unusable_rows_of_base": base_unusable}
    reasons = {gate.text: gate.fault(metrics) for gate in gates}
    metrics["gates"] = [{"gate": text, "passed": reason is None, "reason": reason} for text, reason in reasons.items()]
    metrics["passed"] = not any(reasons.values())
    others = {f"base-{PREDICTIONS_JSONL}": base_rows, f"third-{PREDICTIONS_JSONL}": third_rows}
    with write_files(out, last=METRICS_JSON, stale=list(others)) as folder:
        for name, found in {PREDICTIONS_JSONL: rows, **others}.items():
            if found or name not in others:
                write_predictions(folder / name, found)
        (folder / REPORT_HTML).write_text(render_report(metrics, tables, training), encoding="utf-8")
        (folder / METRICS_JSON).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    for work in works:
        work.forget()
    return metrics


def _judged(
    settings: EvaluationSettings, each: Sequence[list[Prediction]], store: ReferenceStore, judge: Judge | None
) -> tuple[list[list[Prediction]], dict[str, Any] | None]:
    """Each checkpoint's predictions with their scores and what judge or rules say of them; and what judging took."""
    each = [scored(rows, store) for rows in each]
    if settings.categories == "rules":
        return [with_rules(rows) for rows in each], None
    if judge is None:
        return each, None
    each = [judge.judge(rows) for rows in each]
    cost = judge.counts.cost(settings.judge_prices)
    unjudged = sum(row.consistency is None for row in each[0])
    counts = {**asdict(judge.counts), "unjudged_of_checkpoint": unjudged, "dollars": cost}
    if judge.failure:
        print(f"judge: the first failure: {judge.failure}", flush=True)
    shown = "" if cost is None else f", {cost:.2f} dollars"
    print(
        f"judge: {judge.counts.asked} answers, {judge.counts.cached} from the cache, {judge.counts.failed} failed, "
        f"{judge.counts.prompt_tokens + judge.counts.completion_tokens} tokens{shown}",
        flush=True,
    )
    return each, counts


def _metrics(
    settings: EvaluationSettings,
    rows: Sequence[Prediction],
    base_rows: Sequence[Prediction],
    third_rows: Sequence[Prediction],
) -> tuple[dict[str, Any], dict[str, PredictionTable]]:
    """What metrics.json holds, and the tables behind it by their role in it."""
    shown = PredictionTable(rows)
    tables = {"checkpoint": shown}
    metrics = {
        "checkpoint": Path(settings.checkpoint or str(settings.predictions)).name,
        "evaluated": settings.checkpoint or settings.predictions,
        "in_sample": settings.in_sample,
        **metrics_of(shown),
        "intervals": intervals(shown),
        "base": None,
        "comparison": None,
        "third": None,
    }
    others = {"base": (settings.base or settings.base_predictions, base_rows)}
    others["third"] = (settings.also_evaluate, third_rows)
    for role, (source, found) in others.items():
        if found:
            table = tables[role] = PredictionTable(found)
            metrics[role] = {"checkpoint": Path(str(source)).name, **metrics_of(table), "intervals": intervals(table)}
    if base_rows:
        metrics["comparison"] = paired(shown, tables["base"], list(HEADLINE.values()))
    return metrics, tables
