"""Report of a run: what was made, how similar it is, examples, and whether the words alone give the answer away."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from random import Random
from typing import TYPE_CHECKING, Any

from rarft.negatives.config import NegativeSettings
from rarft.negatives.corpus import Corpus
from rarft.negatives.negative import KINDS, Negative
from rarft.negatives.similarity import TextVectors
from rarft.negatives.text_only import text_only_auroc
from rarft.reporting.charts import bars, histogram
from rarft.reporting.html import render_page

if TYPE_CHECKING:
    from rarft.negatives.build import Result

MAX_AUROC = 0.65  # above it, the report warns
_DIFFICULTIES = ("easy", "medium", "hard")
_BINS = 40
_MAX_SIMILARITIES = 500  # swapped queries to encode for their histogram
_MAX_EXAMPLES = 12  # per kind
_MAX_REJECTED = 30


def _similarities(
    kind: str, rows: Sequence[tuple[int, Negative]], corpus: Corpus, vectors: TextVectors | None, rng: Random
) -> list[int]:
    """Return the histogram of similarities to the nearest text about the video; of a sample for swapped queries."""
    counts = [0] * _BINS
    if kind == "rules":
        if vectors is None:
            return []
        sample = rng.sample(rows, min(len(rows), _MAX_SIMILARITIES))
        values = vectors.similarities([(row.query, list(corpus.videos[video].texts)) for video, row in sample])
    else:
        values = [row.detail["similarity"] for _, row in rows]
    for value in values:
        counts[min(_BINS - 1, max(0, int(value * _BINS)))] += 1
    return counts


def describe(
    corpus: Corpus, result: "Result", settings: NegativeSettings, vectors: TextVectors | None
) -> dict[str, Any]:
    """Return the content of report.json."""
    rng = Random(settings.seed)
    items = corpus.answerable_items()
    by_kind: dict[str, list[tuple[int, Negative]]] = defaultdict(list)
    for index in sorted(result.negatives):
        for negative in result.negatives[index]:
            by_kind[negative.kind].append((items[index].video, negative))
    kinds = [kind for kind in KINDS if kind in by_kind]
    every = [row for kind in kinds for row in by_kind[kind]]
    answerable = [query for item in items for query in item.queries]

    def measure(rows: Sequence[tuple[int, Negative]]) -> float | None:
        origins = [(row.query, row.query if row.kind == "shuffled" else row.source) for _, row in rows]
        return text_only_auroc(answerable, origins, settings.seed)

    requests = result.requests
    return {
        "counts": {
            "items": len(corpus.items),
            "answerable_items": len(items),
            "answerable_queries": len(answerable),
            "videos": len(corpus.videos),
            "requested": settings.per_item * len(items),
            "made": len(every),
            "missing": {kind: number for kind, number in sorted(result.missing.items()) if number},
            "moved_from_rules_to_shuffled": result.moved,
        },
        "kinds": {kind: len(by_kind[kind]) for kind in kinds},
        "difficulties": {
            kind: {name: sum(row.difficulty == name for _, row in by_kind[kind]) for name in _DIFFICULTIES}
            for kind in kinds
        },
        "categories": {
            kind: dict(
                Counter(name for _, row in by_kind[kind] for name in row.categories or ["unknown"]).most_common()
            )
            for kind in kinds
        },
        "text_only_auroc": {"all": measure(every), **{kind: measure(by_kind[kind]) for kind in kinds}},
        "similarities": {
            kind: counts for kind in kinds if (counts := _similarities(kind, by_kind[kind], corpus, vectors, rng))
        },
        "near_duplicates": {
            "limit": settings.duplicate,
            "dropped": result.duplicates.count,
            "examples": [list(each) for each in result.duplicates.examples],
        },
        "examples": {
            kind: [
                {
                    "query": row.query,
                    "source": row.source,
                    "difficulty": row.difficulty,
                    "categories": row.categories,
                    "reason": row.reason,
                    "video": corpus.videos[video].name,
                }
                for video, row in rng.sample(by_kind[kind], min(len(by_kind[kind]), _MAX_EXAMPLES))
            ]
            for kind in kinds
        },
        "model": None
        if requests is None
        else {
            "model": settings.model and settings.model.model,
            **{name: requests.counts[name] for name in sorted(requests.counts)},
            "dollars": requests.cost,
            "failed_items": result.failed_items,
            "stopped_items": result.stopped_items,
            "first_failure": requests.first_failure,
            "rejected": len(result.rejected),
            "rejected_examples": [asdict(each) for each in result.rejected[:_MAX_REJECTED]],
        },
        "settings": {
            "per_item": settings.per_item,
            "mix": dict(settings.mix),
            "seed": settings.seed,
        },
    }


def warnings_of(report: dict[str, Any]) -> list[str]:
    """Return what a user should know before training on the data."""
    counts, aurocs, model = report["counts"], report["text_only_auroc"], report["model"]
    lines = [
        f"the words alone show which queries are {'negatives' if kind == 'all' else kind}: a classifier without the "
        f"video has an AUROC of {value:.2f} (0.5: they show nothing)"
        for kind, value in aurocs.items()
        if value is not None and value > MAX_AUROC
    ]
    if counts["missing"]:
        missing = ", ".join(f"{number} {kind}" for kind, number in counts["missing"].items())
        lines.append(
            f"{sum(counts['missing'].values())} of {counts['requested']} queries could not be made ({missing})"
        )
    if model and model["failed_items"]:
        lines.append(f"the model did not reply for {model['failed_items']} items: {model['first_failure']}")
    if model and model["stopped_items"]:
        lines.append(f"the model was not asked for {model['stopped_items']} items, because of --max-cost")
    return lines


def render_report(report: dict[str, Any]) -> str:
    """Return the report as an HTML page."""
    counts, aurocs = report["counts"], report["text_only_auroc"]
    kinds = list(report["kinds"])
    return render_page(
        "negatives.html.j2",
        "Negatives",
        f"{counts['made']:,} refusable queries for {counts['answerable_items']:,} items with answerable queries.",
        headline={
            "made": f"{counts['made']:,}",
            "requested": f"{counts['requested']:,}",
            "text-only AUROC": aurocs["all"],
            "near duplicates dropped": f"{report['near_duplicates']['dropped']:,}",
        },
        warnings=warnings_of(report),
        difficulties=[
            [
                kind,
                *(report["difficulties"][kind][name] for name in _DIFFICULTIES),
                report["kinds"][kind],
                aurocs[kind],
            ]
            for kind in kinds
        ],
        difficulty_names=list(_DIFFICULTIES),
        categories={f"Categories of {kind}": bars(report["categories"][kind]) for kind in kinds},
        similarities={
            f"Similarity of {kind}": histogram(values, 1.0, "", open_ended=False, title="cosine similarity")
            for kind, values in report["similarities"].items()
        },
        examples={
            kind: [
                [
                    row["query"],
                    row["source"],
                    row["difficulty"],
                    ", ".join(row["categories"]),
                    row["reason"],
                    row["video"],
                ]
                for row in report["examples"][kind]
            ]
            for kind in kinds
        },
        duplicates=report["near_duplicates"]["examples"],
        duplicate_limit=report["near_duplicates"]["limit"],
        model=[
            [name.replace("_", " "), value]
            for name, value in (report["model"] or {}).items()
            if name != "rejected_examples" and value not in ("", None)
        ],
        rejected=[
            [row["query"], row["source"], row["category"], row["problem"]]
            for row in (report["model"] or {}).get("rejected_examples", [])
        ],
    )


def summary(report: dict[str, Any]) -> str:
    """Return the report as a few lines of text."""
    counts, aurocs = report["counts"], report["text_only_auroc"]
    lines = [f"{counts['made']} of {counts['requested']} refusable queries for {counts['answerable_items']} items"]
    for kind, number in report["kinds"].items():
        by_difficulty = ", ".join(f"{report['difficulties'][kind][name]} {name}" for name in _DIFFICULTIES)
        value = "too few queries" if aurocs[kind] is None else f"{aurocs[kind]:.3f}"
        lines.append(f"  {number} {kind}: {by_difficulty}; text-only AUROC {value}")
    if aurocs["all"] is not None:
        lines.append(f"  text-only AUROC of all: {aurocs['all']:.3f} (0.5: the words alone show nothing)")
    return "\n".join(lines)
