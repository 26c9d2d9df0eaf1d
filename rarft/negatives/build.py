"""Add refusable queries to validated data: make them by kind, then write the data, a report and what was rejected."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from rarft.annotations.checks import sample_id
from rarft.annotations.encoding import compact_json
from rarft.annotations.parsing import normalize_text
from rarft.annotations.schema import Sample, Source, iterate_samples
from rarft.embeddings.store import ReferenceStore
from rarft.errors import InputError
from rarft.negatives.config import NegativeSettings
from rarft.negatives.corpus import Corpus, Item, ItemKey
from rarft.negatives.lexicon import Lexicon
from rarft.negatives.model import ModelResult, ModelWriter, Rejected
from rarft.negatives.negative import Negative, reads_as_refusal
from rarft.negatives.outputs import REJECTED_JSONL, REPORT_HTML, REPORT_JSON, name_next_to
from rarft.negatives.report import describe, render_report
from rarft.negatives.requests import PaidRequests
from rarft.negatives.rules import RuleMaker
from rarft.negatives.shuffled import Duplicates, Shuffler
from rarft.negatives.similarity import TextVectors
from rarft.progress import progress
from rarft.storage.location import Location

logger = logging.getLogger(__name__)


@dataclass
class Result:
    """Everything that was made.

    Attributes:
        negatives: Queries by index of the item.
        missing: Number of queries that could not be made, by kind.
        moved: Number of queries that rules could not make, and that were drawn from other videos instead.
        duplicates: Queries of other videos that were dropped as near duplicates.
        rejected: Candidates of the model that were not used.
        failed_items: Items for which the model did not reply.
        stopped_items: Items for which it was not asked, because of the maximum cost.
        requests: Requests to the model; None if it is not in the mix.
    """

    negatives: dict[int, list[Negative]] = field(default_factory=lambda: defaultdict(list))
    missing: Counter[str] = field(default_factory=Counter)
    moved: int = 0
    duplicates: Duplicates = field(default_factory=Duplicates)
    rejected: list[Rejected] = field(default_factory=list)
    failed_items: int = 0
    stopped_items: int = 0
    requests: PaidRequests | None = None


def _make_rules(
    corpus: Corpus, lexicon: Lexicon, settings: NegativeSettings, numbers: Sequence[dict[str, int]], result: Result
) -> None:
    items = corpus.answerable_items()
    requested = sum(each.get("rules", 0) for each in numbers)
    queries = [query for item in items for query in item.queries]
    maker = RuleMaker(queries, lexicon, settings.seed, requested / len(queries))
    number = 0
    for index, item in enumerate(progress(items, "swapping words", unit=" items")):
        video = corpus.videos[item.video]
        words = video.words(lexicon) if numbers[index].get("rules") else frozenset[str]()
        for turn in range(numbers[index].get("rules", 0)):
            negative = maker.make(item.queries[turn % len(item.queries)], words, video.taken, number)
            number += 1
            if negative is None or not reads_as_refusal(negative.reason):
                if "shuffled" in settings.mix:
                    numbers[index]["shuffled"] += 1
                    result.moved += 1
                else:
                    result.missing["rules"] += 1
                continue
            video.taken.add(normalize_text(negative.query))
            result.negatives[index].append(negative)


def _make_with_model(
    corpus: Corpus,
    vectors: TextVectors,
    lexicon: Lexicon,
    settings: NegativeSettings,
    numbers: Sequence[dict[str, int]],
    result: Result,
) -> None:
    assert settings.model is not None
    result.requests = requests = PaidRequests(settings.model)
    requests.check()
    options = settings.model
    writer = ModelWriter(corpus, requests, vectors, lexicon, options.model, settings.duplicate, options.concurrency)
    wanted = {index: each["model"] for index, each in enumerate(numbers)}
    made: dict[int, ModelResult] = dict(writer.make(wanted))
    for index in sorted(made):
        result.negatives[index] += made[index].negatives
        result.missing["model"] += wanted[index] - len(made[index].negatives)
        result.rejected += made[index].rejected
        result.failed_items += bool(made[index].failure)
        result.stopped_items += made[index].stopped


def _make_shuffled(
    corpus: Corpus,
    vectors: TextVectors,
    lexicon: Lexicon,
    settings: NegativeSettings,
    numbers: Sequence[dict[str, int]],
    result: Result,
) -> None:
    shuffler = Shuffler(corpus, vectors, lexicon, settings.seed, settings.duplicate)
    requested = {index: each["shuffled"] for index, each in enumerate(numbers)}
    total = sum(requested.values())
    made = 0
    for index, negative in progress(shuffler.make(requested), "drawing from other videos", total, " queries"):
        if not reads_as_refusal(negative.reason):
            continue
        made += 1
        result.negatives[index].append(negative)
    result.missing["shuffled"] += total - made
    result.duplicates = shuffler.duplicates


def make_all(
    corpus: Corpus, lexicon: Lexicon, settings: NegativeSettings, load_vectors: Callable[[], TextVectors]
) -> Result:
    """Make the queries of all items.

    Args:
        corpus: Videos and items.
        lexicon: Swappable words and synonyms.
        settings: Settings of the run.
        load_vectors: Returns the embeddings of all texts; called only if a kind needs them.
    """
    result = Result()
    numbers = settings.assign_kinds(len(corpus.answerable_items()))
    if "rules" in settings.mix:
        _make_rules(corpus, lexicon, settings, numbers, result)
    if settings.mix.keys() & {"shuffled", "model"}:
        vectors = load_vectors()
        if "model" in settings.mix:
            _make_with_model(corpus, vectors, lexicon, settings, numbers, result)
        if "shuffled" in settings.mix:
            _make_shuffled(corpus, vectors, lexicon, settings, numbers, result)
    return result


def _to_sample(negative: Negative, source: Sample, query: int, seed: int) -> Sample:
    """Return a row of the data: like the source, but refusable."""
    references = dict.fromkeys([negative.source, *source.reference_queries])
    origin = {"kind": negative.kind, "seed": seed, "source": source.id, **negative.detail}
    return msgspec.structs.replace(
        source,
        id=sample_id(source.video, negative.query, "refusable", []),
        query=negative.query,
        task_type="refusable",
        segments=[],
        segment=None,
        gt_answer=negative.reason,
        contrast_answer=source.gt_answer,
        reference_queries=list(references),
        categories=negative.categories,
        difficulty=negative.difficulty,
        source=Source(source.source.file, source.source.item, query),
        extra={**source.extra, "q_origin": negative.source, "negative": origin},
    )


def _write_item(
    item: Item, samples: Sequence[Sample], negatives: Sequence[Negative], seed: int, file: BinaryIO
) -> None:
    """Write the rows of an item, then its new ones. The first is the contrasting answer of queries without one."""
    sources = {sample.query: sample for sample in reversed(samples) if sample.task_type == "answerable"}
    for sample in samples:
        if negatives and sample.task_type == "answerable" and sample.contrast_answer is None:
            sample = msgspec.structs.replace(sample, contrast_answer=negatives[0].reason)
        file.write(compact_json(sample) + b"\n")
    for offset, negative in enumerate(negatives):
        file.write(
            compact_json(_to_sample(negative, sources[negative.source], item.next_query + offset, seed)) + b"\n"
        )


def _write_rows(samples: Iterable[Sample], corpus: Corpus, result: Result, seed: int, file: BinaryIO) -> None:
    """Write all rows in their order, the new ones of an item after its last row."""
    indices = {id(item): index for index, item in enumerate(corpus.answerable_items())}
    pending: dict[ItemKey, list[Sample]] = defaultdict(list)
    for sample in samples:
        key = (sample.source.file, sample.source.item)
        pending[key].append(sample)
        item = corpus.items[key]
        if len(pending[key]) == item.rows:
            negatives = result.negatives.get(indices.get(id(item), -1), [])
            _write_item(item, pending.pop(key), negatives, seed, file)


def add_negatives(
    data: Path,
    name: str,
    out: Location,
    lexicon: Lexicon,
    settings: NegativeSettings,
    embed: Callable[[Iterable[str]], ReferenceStore],
) -> dict[str, Any]:
    """Add refusable queries; write the data and, next to it, rejected candidates, report.html and, last, report.json.

    Args:
        data: riq.jsonl.
        name: The user's name of it.
        out: File to write.
        lexicon: Swappable words and synonyms.
        settings: Settings of the run.
        embed: Returns a store with the embeddings of texts; called only if a kind needs them.

    Returns:
        The content of report.json.

    Raises:
        InputError: The data has no answerable query, or the model cannot be used.
    """
    corpus = Corpus(iterate_samples(data, name))
    if not corpus.answerable_items():
        raise InputError(f"{name}: contains no answerable query; negatives are made from answerable ones")
    vectors: list[TextVectors] = []

    def load_vectors() -> TextVectors:
        vectors.append(TextVectors(corpus.texts(), embed(corpus.texts())))
        return vectors[0]

    result = make_all(corpus, lexicon, settings, load_vectors)
    report = describe(corpus, result, settings, vectors[0] if vectors else None)
    rejected, page, marker = (name_next_to(out.name, each) for each in (REJECTED_JSONL, REPORT_HTML, REPORT_JSON))
    with out.parent.write_files(marker) as folder:
        with (folder / out.name).open("wb") as file:
            _write_rows(iterate_samples(data, name), corpus, result, settings.seed, file)
        with (folder / rejected).open("wb") as file:
            file.writelines(compact_json(each) + b"\n" for each in result.rejected)
        (folder / page).write_text(render_report(report), encoding="utf-8")
        (folder / marker).write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return report
