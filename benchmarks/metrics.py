"""Time of computing metrics with intervals and a paired comparison: `python benchmarks/metrics.py`.

100,000 synthetic predictions as `rarft evaluate` writes them, 2 queries per video, in all groups. Without sentence
encoding.
"""

import argparse
import random
import resource
import time

from rarft.annotations.schema import CATEGORIES, Sample, Source
from rarft.completion import render_completion
from rarft.evaluation.bootstrap import intervals, paired
from rarft.evaluation.metrics import HEADLINE, PredictionTable, metrics_of
from rarft.evaluation.predictions import Prediction


def predictions(number: int, accuracy: float, rng: random.Random) -> list[Prediction]:
    """Return random predictions of a given accuracy."""
    labels = sorted(CATEGORIES)
    rows = []
    for index in range(number):
        refusable = index % 2 == 1
        start = rng.uniform(0, 80)
        segment = (start, start + rng.choice([3.0, 8.0, 20.0]))
        sample = Sample(
            id=str(index), video=f"{index // 2}.mp4", query=f"query {index}",
            task_type="refusable" if refusable else "answerable", segment=None if refusable else segment,
            duration=100.0, crop=None, gt_answer="a", contrast_answer=None, reference_queries=["r"],
            categories=[rng.choice(labels)] if refusable else [],
            difficulty=rng.choice(["easy", "medium", "hard"]) if refusable else "original", captions=[],
            source=Source("f", index, 0), extra={},
        )  # fmt: skip
        refuses = refusable == (rng.random() < accuracy)
        answer = "no such moment in this video" if refuses else f"{start + rng.uniform(-3, 3):.2f} to {start + 9:.2f}"
        rows.append(
            Prediction(
                sample, render_completion("what is seen " * 20, answer), {"format": 1.0, "refuse_iou": rng.random()},
                refusal_similarity=rng.random(), correction_similarity=rng.random(),
                categories=[rng.choice(labels)] if refusable else None,
            )
        )  # fmt: skip
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--predictions", type=int, default=100_000, help="number of predictions")
    number = parser.parse_args().predictions
    rng = random.Random(0)
    ours, base = predictions(number, 0.8, rng), predictions(number, 0.6, rng)
    for name, function in {
        "metrics and intervals": lambda: (metrics_of(PredictionTable(ours)), intervals(PredictionTable(ours))),
        "paired comparison": lambda: paired(PredictionTable(ours), PredictionTable(base), list(HEADLINE.values())),
    }.items():
        wall, cpu = time.perf_counter(), time.process_time()
        function()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        print(f"{name:22} of {number:,} predictions: {wall:5.1f} s, CPU {cpu:5.1f} s, peak so far {peak:.1f} GiB")


if __name__ == "__main__":
    main()
