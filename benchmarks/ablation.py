"""Ablation of the rewards, the curriculum and the correction baseline: `python benchmarks/ablation.py --out DIR`.

Trains the packaged tiny model on the same data in every variant, with several seeds, and evaluates it on held-out
videos of the synthetic dataset. Each run uses one thread. Prints a table of means over the seeds with the half width
of their 95 % confidence intervals by Student's t; docs/learning.md shows it. If interrupted, it resumes with the
missing runs as long as code and settings are the same.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from rarft.cli.types import positive_int
from rarft.completion import parse_completion
from rarft.evaluation.metrics import value_at
from rarft.rewards.columns import completion_text
from rarft.rewards.explain_correction import refusal_score
from rarft.storage.hashing import hash_packages, hash_text
from rarft.synthetic import dataset

# Three epochs, since the curriculum selects refusable queries by epoch.
VIDEOS, HELD_OUT, EPOCHS = 64, 60, 3
EXPLAIN = f"{Path(__file__).resolve()}:explain"
BASE = "before training"
METRICS = {
    "refusal F1": "relevance.irrelevant.f1",
    "relevant queries answered": "relevance.relevant.recall",
    "RA-IoU": "ra_iou.mean",
    "mIoU, relevant": "grounding.mean",
    "correction similarity": "correction_similarity.all",
    "format": "format_rate",
}
STUDENT_T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % point, by number of seeds


@dataclass(frozen=True)
class Variant:
    """Flags of `rarft train`, and the name of the training data."""

    name: str
    flags: Sequence[str] = ()
    data: str = "train"


def explain(completions: list[Any], task_type: list[str], **_: Any) -> list[float]:
    """Return the explain term of `explain_correction`: 1 for the right kind of answer, without a bonus."""
    rows = zip(completions, task_type, strict=True)
    return [refusal_score(parse_completion(completion_text(completion)), kind) for completion, kind in rows]


VARIANTS = (
    Variant("format + refuse_iou", ("--reward_funcs", "format", "refuse_iou")),
    Variant("format + refuse_iou + explain", ("--reward_funcs", "format", "refuse_iou", EXPLAIN)),
    Variant("format + refuse_iou + explain_correction"),
    Variant("refuse_iou + explain_correction", ("--reward_funcs", "refuse_iou", "explain_correction")),
    Variant("format + explain_correction", ("--reward_funcs", "format", "explain_correction")),
    Variant("format alone", ("--reward_funcs", "format")),
    Variant("all three, correction_baseline query", ("--correction_baseline", "query")),
    Variant("all three, graded queries", data="graded"),
    Variant("all three, graded queries, curriculum", ("--curriculum", "true"), data="graded"),
)


def rarft(*arguments: str) -> None:
    """Run a `rarft` command on one thread."""
    command = [sys.executable, "-m", "rarft.cli", *arguments]
    done = subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")


def add_difficulties(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Replace each item's refusable query by an easy, a medium and a hard one, for the curriculum to choose from."""
    rng = np.random.default_rng(0)
    for item in items:
        _, *attributes = item["query_text"].split()
        scene = SimpleNamespace(**dict(zip(dataset.ATTRIBUTES, attributes, strict=True)))
        item["GRPO"] = item["GRPO"][:1]
        for changes, difficulty in dataset.DIFFICULTY_OF_CHANGES.items():
            changed = sorted(rng.choice(list(dataset.ATTRIBUTES), size=changes, replace=False).tolist())
            words = [
                rng.choice([other for other in values if other != value]) if name in changed else value
                for (name, values), value in zip(dataset.ATTRIBUTES.items(), attributes, strict=True)
            ]
            query = {"q": f"a {' '.join(words)}", "r": False, "difficulty": difficulty}
            categories = [dataset.CATEGORIES[name] for name in changed]
            answer = f"<answer>{dataset.refusal(scene, changed)}</answer>"  # type: ignore[arg-type]
            item["GRPO"].append({**query, "a": answer, "c": categories})
    return items


def prepare(out: Path) -> None:
    """Make and validate the data, and embed its reference queries, once for all runs."""
    if not (out / "embeddings" / "index.json").exists():
        rarft("make-dataset", "--out", str(out / "sample"), "--train", str(VIDEOS), "--eval", str(HELD_OUT))
        items = json.loads((out / "sample" / "train.json").read_text(encoding="utf-8"))
        # Training uses one of them per item and epoch, so the number of steps is the same.
        (out / "sample" / "graded.json").write_text(json.dumps(add_difficulties(items)), encoding="utf-8")
        for split in ("train", "graded", "eval"):
            rarft("validate", str(out / "sample" / f"{split}.json"), "--out", str(out / split))
        rarft("embed", str(out / "train"), "--out", str(out / "embeddings"))


def train_and_evaluate(out: Path, variant: Variant, seed: int) -> dict[str, Any]:
    """Train and evaluate a variant with a seed, unless that was done before, and return the metrics."""
    folder = out / "runs" / variant.name.replace(" ", "_") / str(seed)
    metrics = folder / "evaluation" / "metrics.json"
    if not metrics.exists():
        rarft(
            *("train", "--preset", "tiny", "--train_data_path", str(out / variant.data), "--out", str(folder)),
            *("--embeddings", str(out / "embeddings"), "--num_train_epochs", str(EPOCHS), "--seed", str(seed)),
            *variant.flags,
        )
        checkpoint = folder / "checkpoints" / "rarft" / "checkpoint-final"
        rarft("evaluate", "--checkpoint", str(checkpoint), "--data", str(out / "eval"), "--out", str(metrics.parent))
        print(f"{variant.name}, seed {seed}: done", file=sys.stderr, flush=True)
    return dict(json.loads(metrics.read_text(encoding="utf-8")))


def evaluate_base(out: Path) -> dict[str, Any]:
    """Return the metrics of the model that all runs start from."""
    folder = out / "runs" / "base"
    if not (folder / "metrics.json").exists():
        rarft("evaluate", "--checkpoint", "tiny", "--data", str(out / "eval"), "--out", str(folder))
    return dict(json.loads((folder / "metrics.json").read_text(encoding="utf-8")))


def cell(name: str, runs: Sequence[dict[str, Any]]) -> str:
    """Format the mean of a metric and, with several seeds, the half width of its interval."""
    known = [value_at(run, METRICS[name]) for run in runs]
    values = [value for value in known if value is not None]
    if len(values) < len(runs):
        return "–"
    mean = f"{statistics.mean(values):.3f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {STUDENT_T[len(values)] * statistics.stdev(values) / math.sqrt(len(values)):.3f}"


def main() -> None:
    """Run everything that is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for data and runs")
    parser.add_argument("--seeds", type=int, choices=STUDENT_T, default=3, help="number of seeds")
    parser.add_argument("--jobs", type=positive_int, default=2, help="parallel runs")
    parser.add_argument("--only", default="", metavar="TEXT", help="run only variants whose name contains this text")
    options = parser.parse_args()
    variants = [variant for variant in VARIANTS if options.only in variant.name]
    # Results of other code or settings are kept in other folders.
    out = options.out / hash_text(hash_packages("rarft"), str((VIDEOS, HELD_OUT, EPOCHS, VARIANTS)))[:12]
    prepare(out)
    with ThreadPoolExecutor(options.jobs) as pool:
        base = pool.submit(evaluate_base, out)
        # Seed by seed, so that an interrupted ablation covers all variants.
        runs = {
            (variant, seed): pool.submit(train_and_evaluate, out, variant, seed)
            for seed in range(options.seeds)
            for variant in variants
        }
        try:
            for done in as_completed([base, *runs.values()]):
                done.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    print(f"| rewards | {' | '.join(METRICS)} |")
    print("|---" * (len(METRICS) + 1) + "|")
    rows = [(BASE, [base.result()])]
    for variant in variants:
        rows.append((variant.name, [runs[variant, seed].result() for seed in range(options.seeds)]))
    for name, results in rows:
        print(f"| {name} | {' | '.join(cell(metric, results) for metric in METRICS)} |")


if __name__ == "__main__":
    main()
