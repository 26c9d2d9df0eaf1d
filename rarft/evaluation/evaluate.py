"""Evaluation of a checkpoint, or of finished predictions; alone, or beside the ones that it is compared with."""

import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rarft import objects
from rarft.errors import InputError
from rarft.evaluation.bootstrap import intervals, paired
from rarft.evaluation.categories import with_rules
from rarft.evaluation.gates import Gate, parse_gate
from rarft.evaluation.judge import Judge
from rarft.evaluation.metrics import HEADLINE, Table, compute_metrics, metrics_of
from rarft.evaluation.predict import Predictor, in_batches
from rarft.evaluation.predictions import Prediction, QueryKey, key_of, read_predictions, write_predictions
from rarft.evaluation.report import METRICS_JSON, REPORT_HTML, render_report
from rarft.evaluation.scoring import scored
from rarft.evaluation.shares import SharedWork, join_processes, rank_and_size
from rarft.qwen.loading import check_checkpoint, checkpoint_path, fetched_checkpoint
from rarft.qwen.reading import ReadingSettings
from rarft.references.encoder import SentenceEncoder
from rarft.references.store import ReferenceStore
from rarft.riq.schema import Sample, read_samples
from rarft.storage import Place, fetched, make_folder, member, write_files

PREDICTIONS_JSONL = "predictions.jsonl"
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


def _files_of(checkpoint: str) -> Any:
    """What changes when a checkpoint's files do; of a hub's name, the name."""
    folder = Path(checkpoint_path(checkpoint))
    if not folder.is_dir():
        return checkpoint
    return sorted((path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.iterdir())


def _version(video: str) -> Any:
    """What changes when a video's file does."""
    path = Path(video)
    return (path.stat().st_size, path.stat().st_mtime_ns) if path.is_file() else None


def _completed(
    checkpoint: str, path: str, what: str, samples: Sequence[Sample], reading: ReadingSettings,
    settings: EvaluationSettings, out: Place,
) -> tuple[list[Prediction], SharedWork]:  # fmt: skip
    """Predictions of a checkpoint, which lies at `path`, done by all processes together; none is done twice."""
    held = objects.entries(checkpoint, what) if objects.is_object_uri(checkpoint) else _files_of(path)
    queries = [
        (sample.id, sample.video, sample.query, sample.duration, sample.crop, _version(sample.video))
        for sample in samples
    ]
    identity = [checkpoint, held, asdict(reading), queries, settings.backend, settings.batch_size]
    work = SharedWork(member(out, _UNFINISHED), identity)
    batches = in_batches(samples, settings.batch_size)
    predictor: list[Predictor] = []  # loaded when there is something to do

    def complete(batch: list[int]) -> list[str]:
        if not predictor:
            predictor.append(Predictor(path, reading, what, settings.backend))
        return predictor[0].complete([samples[index] for index in batch])

    completions = work.run(batches, complete, f"evaluating {'base' if what == '--base' else 'checkpoint'}")
    said: dict[int, str] = {}
    for batch, texts in zip(batches, completions, strict=True):
        said.update(zip(batch, texts, strict=True))
    return [Prediction(sample, said[index]) for index, sample in enumerate(samples)], work


def _finished(path: str, what: str, samples: Sequence[Sample] | None) -> tuple[list[Prediction], int]:
    """Predictions of a file, and how many rows of it cannot be used; those are told."""
    with fetched(path, what) as file:
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
    if settings.base and settings.base_predictions:
        raise InputError("give either --base or --base-predictions")
    if (settings.judge_url is None) != (settings.judge_model is None):
        raise InputError("--judge-url and --judge-model go together")
    if settings.judge_url and settings.categories:
        raise InputError("--categories rules: the judge reads categories, too; leave one of them out")
    with_base = bool(settings.base or settings.base_predictions)
    known = compute_metrics([])
    return [parse_gate(text, with_base, known) for text in settings.gates]


def evaluate(settings: EvaluationSettings, out: Place) -> dict[str, Any]:
    """Evaluate into `out`: predictions.jsonl, report.html and, last, metrics.json.

    Processes that torchrun started share the completions; the first of them does the rest. A killed evaluation goes on
    where it stopped.

    Returns:
        What metrics.json holds; nothing on the other processes.

    Raises:
        InputError: data, predictions, checkpoint or judge that cannot be used.
    """
    gates = _check(settings)
    samples = read_samples(settings.data, "--data") if settings.data else None
    make_folder(out)
    join_processes()
    works: list[SharedWork] = []
    base_rows: list[Prediction] = []
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
            path = files.enter_context(fetched_checkpoint(checkpoint, "--checkpoint"))
            reading = ReadingSettings.of(path)
        if settings.base and reading is not None:
            with fetched_checkpoint(settings.base, "--base") as base_path:
                base_rows, work = _completed(settings.base, base_path, "--base", samples or [], reading, settings, out)
            works.append(work)
        if checkpoint is not None and reading is not None:
            rows, work = _completed(checkpoint, path, "--checkpoint", samples or [], reading, settings, out)
            works.append(work)
        else:
            rows, unusable = _finished(str(settings.predictions), "--predictions", samples)
    if rank_and_size()[0]:
        return {}
    if finished_base:
        base_rows = _aligned(finished_base, rows)
    rows, base_rows, judged = _judged(settings, rows, base_rows, store, judge)
    metrics, shown, base = _metrics(settings, rows, base_rows)
    metrics |= {"judge": judged, "unusable_rows": unusable, "unusable_rows_of_base": base_unusable}
    reasons = {gate.text: gate.fault(metrics) for gate in gates}
    metrics["gates"] = [{"gate": text, "passed": reason is None, "reason": reason} for text, reason in reasons.items()]
    metrics["passed"] = not any(reasons.values())
    with write_files(out, last=METRICS_JSON, stale=[f"base-{PREDICTIONS_JSONL}"]) as folder:
        write_predictions(folder / PREDICTIONS_JSONL, rows)
        if base_rows:
            write_predictions(folder / f"base-{PREDICTIONS_JSONL}", base_rows)
        (folder / REPORT_HTML).write_text(render_report(metrics, shown, base, base_rows), encoding="utf-8")
        (folder / METRICS_JSON).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    for work in works:
        work.forget()
    return metrics


def _judged(
    settings: EvaluationSettings,
    rows: list[Prediction],
    base_rows: list[Prediction],
    store: ReferenceStore,
    judge: Judge | None,
) -> tuple[list[Prediction], list[Prediction], dict[str, Any] | None]:
    """Predictions with rewards, similarities and what the judge or the rules say; and what judging took."""
    rows, base_rows = scored(rows, store), scored(base_rows, store)
    if settings.categories == "rules":
        return with_rules(rows), with_rules(base_rows), None
    if judge is None:
        return rows, base_rows, None
    rows, base_rows = judge.judge(rows), judge.judge(base_rows)
    cost = judge.counts.cost(settings.judge_prices)
    unjudged = sum(row.consistency is None for row in rows)
    counts = {**asdict(judge.counts), "unjudged_of_checkpoint": unjudged, "dollars": cost}
    if judge.failure:
        print(f"judge: the first failure: {judge.failure}", flush=True)
    shown = "" if cost is None else f", {cost:.2f} dollars"
    print(
        f"judge: {judge.counts.asked} answers, {judge.counts.cached} from the cache, {judge.counts.failed} failed, "
        f"{judge.counts.prompt_tokens + judge.counts.completion_tokens} tokens{shown}",
        flush=True,
    )
    return rows, base_rows, counts


def _metrics(
    settings: EvaluationSettings, rows: Sequence[Prediction], base_rows: Sequence[Prediction]
) -> tuple[dict[str, Any], Table, Table | None]:
    shown, base = Table(rows), Table(base_rows) if base_rows else None
    metrics = {
        "checkpoint": Path(settings.checkpoint or str(settings.predictions)).name,
        "evaluated": settings.checkpoint or settings.predictions,
        "in_sample": settings.in_sample,
        **metrics_of(shown),
        "intervals": intervals(shown),
        "base": None,
        "comparison": None,
    }
    if base is not None:
        name = Path(str(settings.base or settings.base_predictions)).name
        metrics["base"] = {"checkpoint": name, **metrics_of(base), "intervals": intervals(base)}
        metrics["comparison"] = paired(shown, base, list(HEADLINE.values()))
    return metrics, shown, base
