"""Evaluation of a checkpoint, alone or beside the one that it was trained from."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec

from rarft.evaluation.metrics import compute_metrics
from rarft.evaluation.predict import Prediction, Predictor
from rarft.evaluation.report import render_report
from rarft.qwen.loading import check_checkpoint, fetched_checkpoint
from rarft.qwen.reading import ReadingSettings
from rarft.references.encoder import SentenceEncoder
from rarft.references.store import ReferenceStore
from rarft.rewards.registry import resolve_rewards
from rarft.rewards.replay import score_completion
from rarft.riq.schema import Sample, read_samples
from rarft.storage import Place, make_folder, write_files

METRICS_JSON = "metrics.json"
PREDICTIONS_JSONL = "predictions.jsonl"
REPORT_HTML = "report.html"

REWARDS = ["format", "refuse_iou", "explain_correction"]


def _scored(predictions: list[Prediction], store: ReferenceStore) -> list[Prediction]:
    """The predictions with the guide's three rewards; where the duration is not known, those that need none."""
    functions = dict(zip(REWARDS, resolve_rewards(REWARDS, store), strict=True))
    scored = []
    for row in predictions:
        usable = {name: reward for name, reward in functions.items() if row.sample.duration or name != "refuse_iou"}
        terms = score_completion(row.sample, row.completion, usable)
        rewards = {name: value for name in usable if (value := terms[name]) is not None}
        scored.append(msgspec.structs.replace(row, rewards=rewards))
    return scored


def _write_predictions(path: Path, predictions: list[Prediction]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(prediction) + b"\n" for prediction in predictions))


def evaluate(
    checkpoint: str,
    data: str,
    out: Place,
    base: str | None = None,
    encoder: str | None = None,
    in_sample: bool | None = None,
    batch_size: int = 16,
) -> dict[str, Any]:
    """Evaluate into `out`: predictions.jsonl, report.html and, last, metrics.json.

    Args:
        checkpoint: what is evaluated.
        data: riq.jsonl, or the folder that holds it.
        out: folder to write into.
        base: a checkpoint to compare with; it reads prompts as `checkpoint` does.
        encoder: sentence encoder of the correction reward; by default the packaged one.
        in_sample: whether the checkpoint was trained on these videos, where that is known; every figure is
            labelled if it was.
        batch_size: prompts per batch.

    Returns:
        What metrics.json holds: the checkpoint's metrics, and the base's under `base`.

    Raises:
        InputError: data or checkpoint that cannot be used.
    """
    samples: list[Sample] = read_samples(data, "--data")
    check_checkpoint(checkpoint, "--checkpoint")
    if base:
        check_checkpoint(base, "--base")
    make_folder(out)
    store = ReferenceStore.empty(SentenceEncoder(encoder) if encoder else SentenceEncoder())

    def predictions_of(path: str, what: str, name: str) -> list[Prediction]:
        predictor = Predictor(path, reading, what)
        return _scored(predictor.predict(samples, batch_size, f"evaluating {name}"), store)

    with ExitStack() as files:
        path = files.enter_context(fetched_checkpoint(checkpoint, "--checkpoint"))
        reading = ReadingSettings.of(path)
        base_predictions = []
        if base:
            base_path = files.enter_context(fetched_checkpoint(base, "--base"))
            base_predictions = predictions_of(base_path, "--base", "base")
        predictions = predictions_of(path, "--checkpoint", "checkpoint")
    metrics = {
        "checkpoint": Path(checkpoint).name,
        "in_sample": in_sample,
        **compute_metrics(predictions),
        "base": {"checkpoint": Path(base).name, **compute_metrics(base_predictions)} if base else None,
    }
    with write_files(out, last=METRICS_JSON, stale=[f"base-{PREDICTIONS_JSONL}"]) as folder:
        _write_predictions(folder / PREDICTIONS_JSONL, predictions)
        if base:
            _write_predictions(folder / f"base-{PREDICTIONS_JSONL}", base_predictions)
        (folder / REPORT_HTML).write_text(render_report(metrics, predictions), encoding="utf-8")
        (folder / METRICS_JSON).write_text(json.dumps(metrics, indent=1) + "\n", encoding="utf-8")
    return metrics
