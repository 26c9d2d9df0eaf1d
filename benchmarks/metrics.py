"""CPU time and memory of the metrics of several candidates: `python benchmarks/metrics.py [--queries N]`.

Writes synthetic predictions (ten queries per video, half of them refusable, distinct completions, refusal scores) and
reads them as `rarft evaluate --predictions` does. Then computes all metrics, their intervals, and the paired
differences of two candidates. The sentence encoder is left out: rewards are synthetic.
"""

import argparse
import random
import resource
import tempfile
import time
from pathlib import Path

import msgspec

from rarft.annotations.schema import Sample, Source
from rarft.completion import format_segment, render_completion
from rarft.evaluation.bootstrap import intervals, paired
from rarft.evaluation.metrics import HEADLINE, PredictionTable, metrics_of
from rarft.evaluation.predictions import Prediction, read_predictions, write_predictions

WORDS = ("person", "dog", "opens", "closes", "door", "window", "runs", "sits", "table", "red", "blue", "walks")
CANDIDATES = 3
REWARDS = {"format": 1.0, "refuse_iou": 0.5}


def make_predictions(queries: int, seed: int) -> list[Prediction]:
    """Return the predictions of a candidate; the queries do not depend on the seed."""
    rng = random.Random(seed)
    predictions = []
    for index in range(queries):
        start = float(index % 20)
        segments = [(start, start + 5.0)] if index % 2 else []
        sample = Sample(
            id=f"{index}", video=f"{index // 10}.mp4", query=f"query {index}",
            task_type="answerable" if segments else "refusable", segments=segments,
            segment=segments[0] if segments else None, duration=30.0, crop=None, gt_answer="no such moment",
            contrast_answer=None, reference_queries=["a dog runs"],
            categories=[] if segments else ["Object/ObjectExistence"], difficulty=None if segments else "hard",
            captions=[], source=Source("data.json", index, 0), extra={},
        )  # fmt: skip
        score = rng.random() if segments else rng.random() ** 0.5
        moment = rng.uniform(0.0, 20.0)
        answer = format_segment((moment, moment + 5.0))
        if rng.random() < score:
            answer = f"There is no {' '.join(rng.choices(WORDS, k=20))} in the video."
        completion = render_completion(" ".join(rng.choices(WORDS, k=60)), answer)
        row = Prediction(sample, completion, refusal_score=score, refusal_share=round(8 * score) / 8)
        predictions.append(row)
    return predictions


class Stopwatch:
    """CPU seconds of successive phases, printed."""

    def __init__(self) -> None:
        self._start = self._last = time.process_time()

    def lap(self, name: str) -> None:
        """Print the CPU seconds since the previous call."""
        now = time.process_time()
        print(f"{name:<10} {now - self._last:>6.1f} s")
        self._last = now

    def total(self) -> None:
        """Print the CPU seconds of all phases and the peak memory of the process."""
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{'total':<10} {self._last - self._start:>6.1f} s CPU, {peak:.0f} MiB")


def main() -> None:
    """Print the CPU seconds of each phase."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=100_000)
    queries = parser.parse_args().queries
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{seed}.jsonl" for seed in range(CANDIDATES)]
        for seed, file in enumerate(files):
            write_predictions(file, make_predictions(queries, seed))
        stopwatch = Stopwatch()
        predictions = [read_predictions(file, None)[0] for file in files]
        stopwatch.lap("read")
        for rows in predictions:
            rows[:] = [msgspec.structs.replace(row, rewards=REWARDS) for row in rows]
        stopwatch.lap("rewards")
        tables = [PredictionTable(rows) for rows in predictions]
        stopwatch.lap("tables")
        for table in tables:
            metrics_of(table)
        stopwatch.lap("metrics")
        for table in tables:
            intervals(table)
        stopwatch.lap("intervals")
        paired(tables[0], tables[1], list(HEADLINE.values()))
        stopwatch.lap("paired")
        stopwatch.total()


if __name__ == "__main__":
    main()
