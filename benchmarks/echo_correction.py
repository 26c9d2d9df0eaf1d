"""Correction bonus of echoing the refused query: `python benchmarks/echo_correction.py RIQ_JSONL`.

For each refusable query, the bonus of the unchanged query as its correction, compared with its reference queries.
"""

import argparse
from collections import defaultdict
from pathlib import Path

from rarft.annotations.schema import iterate_samples
from rarft.completion import render_completion
from rarft.embeddings.encoder import default_encoder
from rarft.embeddings.store import ReferenceStore
from rarft.rewards.explain_correction import ExplainCorrection


def main() -> None:
    """Print the fraction of queries with a bonus and its mean, overall and by difficulty, for both baselines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, metavar="RIQ_JSONL")
    samples = [
        sample
        for sample in iterate_samples(parser.parse_args().data)
        if sample.task_type == "refusable" and sample.reference_queries
    ]
    store = ReferenceStore(default_encoder())
    completions = [render_completion("t", "no such moment", sample.query) for sample in samples]
    for baseline in ("none", "query"):
        bonuses: dict[str, list[float]] = defaultdict(list)
        scores = ExplainCorrection(store, baseline)(
            completions,
            task_type=[sample.task_type for sample in samples],
            reference_queries=[sample.reference_queries for sample in samples],
            query=[sample.query for sample in samples],
        )
        for sample, score in zip(samples, scores, strict=True):
            bonuses["all"].append(score - 1)
            bonuses[sample.difficulty or "unlabeled"].append(score - 1)
        for group, values in bonuses.items():
            rate = sum(value > 0 for value in values) / len(values)
            mean = sum(values) / len(values)
            label = f"baseline {baseline:<6} {group:<10} {len(values):>6} queries"
            print(f"{label}, {rate:6.1%} with a bonus, mean {mean:.3f}")


if __name__ == "__main__":
    main()
