"""What echoing the refused query earns: `python benchmarks/echo.py RIQ_JSONL`.

For each refusable query, the correction bonus of the unchanged query itself, against its reference queries.
"""

import sys
from collections import defaultdict
from pathlib import Path

from rarft.annotations.schema import iterate_samples
from rarft.completion import render_completion
from rarft.embeddings.encoder import default_encoder
from rarft.embeddings.store import ReferenceStore
from rarft.rewards.explain_correction import ExplainCorrection


def main() -> None:
    """Print share and mean of the bonus, overall and by difficulty, for both baselines."""
    samples = [
        sample
        for sample in iterate_samples(Path(sys.argv[1]))
        if sample.task_type == "refusable" and sample.reference_queries
    ]
    store = ReferenceStore.empty(default_encoder())
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
            bonuses[sample.difficulty or "unlabelled"].append(score - 1)
        for group, values in bonuses.items():
            earn = sum(value > 0 for value in values) / len(values)
            mean = sum(values) / len(values)
            print(f"baseline {baseline:<6} {group:<10} {len(values):>6} queries {earn:6.1%} earn, mean {mean:.3f}")


if __name__ == "__main__":
    main()
